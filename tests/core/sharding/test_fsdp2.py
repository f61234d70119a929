"""FSDP2 optimises what one device and ddp do: weights and logged numbers after real `nashtune fit` runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.strategies import ModelParallelStrategy

from lab import Lab
from nashtune.errors import InputError
from nashtune.sharding.strategy import FSDP2Strategy, check_strategy, own_strategy
from ranks import DDP, call_on_ranks
from sharded_runs import COMMON, FSDP2, ONE, TWO, command, distance, fit_each, same_numbers

RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "lora-cached": ("dpo", ("--policy.lora.r", "2", "--spec.references.ref", "cached")),
    "adamw-cached": (
        "dpo",
        (
            *("--spec.references.ref", "cached", "--spec.optimizer.name", "adamw"),
            *("--policy.gradient_checkpointing", "true"),
        ),
    ),
    "epsilon": ("epsilon_dpo", ("--engine", "dense")),
    "reward": ("reward_bt", ("--spec.head.members", "3", "--policy.lora.r", "2")),
}


def test_dpo_with_accumulation_and_unequal_passes_is_that_of_one_device_and_of_ddp(lab: Lab) -> None:
    """1 rank x 4 micro-batches is 2 ranks x 2; a pass holds one pair or two, and ranks have other numbers of them."""
    one = lab.fit(*COMMON, *ONE, run="one")
    samples = ("--samples.prompts", "2", "--samples.max_new_tokens", "4")
    ddp = command(lab, "ddp", "dpo", *TWO, *DDP, "--trainer.devices", "2")
    commands = [ddp, command(lab, "fsdp2", "dpo", *TWO, *FSDP2, *samples)]
    call_on_ranks(fit_each, lab.folder, commands, seconds=150)
    for run in (lab.folder / "ddp", lab.folder / "fsdp2"):
        same_numbers(lab, one, run)
        assert distance(one, run) < 1e-6
    # tokens of all ranks, each row once: not those of passes that only keep the ranks in step
    speeds = [
        json.loads((lab.folder / run / "report.json").read_text())["throughput"] for run in ("one", "ddp", "fsdp2")
    ]
    for each in ("tokens_per_second", "positions_per_second"):
        counts = [round(speed[each] * speed["training_seconds"]) for speed in speeds]
        assert counts[0] > 0 and counts == [counts[0]] * 3, each
    assert (lab.folder / "fsdp2" / "samples.json").is_file()
    files = [lab.folder / run / "export" / "model.safetensors" for run in ("one", "fsdp2")]
    assert files[0].stat().st_size == files[1].stat().st_size


def test_other_methods_references_and_engines(lab: Lab) -> None:
    commands = [command(lab, f"{run}-2", spec, *TWO, *FSDP2, *options) for run, (spec, options) in RUNS.items()]
    call_on_ranks(fit_each, lab.folder, commands, seconds=150)
    for run, (spec, options) in RUNS.items():
        one, two = lab.fit(*COMMON, *ONE, *options, run=run, spec=spec), lab.folder / f"{run}-2"
        same_numbers(lab, one, two)
        assert distance(one, two) < 1e-6, run


def test_what_does_not_go_with_it_is_refused(lab: Lab, refused: Callable[..., str]) -> None:
    fit = ["fit", "--spec", "dpo", "--config", str(lab.run_file)]
    assert "use fsdp2" in refused(*fit, "--trainer.strategy", "fsdp")
    parallel = ("--trainer.strategy", "lightning.pytorch.strategies.ModelParallelStrategy")
    assert "tensor_parallel_size 2 is not supported" in refused(
        *fit, *parallel, "--trainer.strategy.tensor_parallel_size", "2"
    )
    for optimizer, scaler, said in (("adamw_8bit", None, "use adamw with fsdp2"), ("adamw", object(), "bf16-mixed")):
        trainer: Any = SimpleNamespace(strategy=FSDP2Strategy(), precision_plugin=SimpleNamespace(scaler=scaler))
        with pytest.raises(InputError, match=said):
            check_strategy(trainer, optimizer)
    ours = own_strategy(ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1))
    assert isinstance(ours, FSDP2Strategy) and ours.checkpoints == "full"

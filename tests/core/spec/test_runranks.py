"""Processes, strategy and devices of a run, as `check` and `fit` see them before anything loads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.launcher import launcher
from nashtune.spec import runranks
from nashtune.spec.run import load_runs
from nashtune.spec.runoptions import check_settings, precheck, put_options
from nashtune.spec.runranks import Ranks, problems, ranks_of

LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME")
DDP = "lightning.pytorch.strategies.DDPStrategy"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runranks, "on_accelerator", lambda trainer: trainer.get("accelerator") in ("gpu", "cuda"))


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({}, Ranks("one", 1)),
        ({"devices": 2}, Ranks("ddp", 2)),
        ({"devices": "2", "num_nodes": 3, "strategy": "ddp"}, Ranks("ddp", 6)),
        ({"devices": [0, 2], "accelerator": "gpu", "strategy": "fsdp2"}, Ranks("fsdp2", 2)),
        ({"devices": "0,2,3", "accelerator": "gpu"}, Ranks("ddp", 3)),
        ({"devices": -1, "accelerator": "gpu", "strategy": "fsdp2_sharded"}, Ranks("fsdp2", None)),
        ({"accelerator": "cuda", "strategy": "fsdp2"}, Ranks("fsdp2", None)),
        ({"strategy": "deepspeed_stage_2", "devices": 4}, Ranks("deepspeed", 4)),
        ({"strategy": {"class_path": DDP}, "devices": 2}, Ranks("ddp", 2)),
        ({"strategy": {"class_path": "nashtune.sharding.strategy.FSDP2Strategy"}, "devices": 2}, Ranks("fsdp2", 2)),
        ({"strategy": {"class_path": "mine.Strategy"}, "devices": 2}, Ranks("other", 2)),
    ],
)
def test_how_many_processes_share_what(trainer: dict[str, Any], expected: Ranks) -> None:
    assert list(problems(trainer)) == []
    assert ranks_of(trainer) == expected


@pytest.mark.parametrize(
    ("trainer", "option", "said"),
    [
        ({"strategy": "dpp"}, "strategy", "'dpp' is no strategy here; did you mean 'ddp'? (known: auto, ddp,"),
        ({"strategy": "ddp_spawn"}, "strategy", "ddp_spawn: processes that are forked or spawned"),
        ({"strategy": "ddp_notebook_find_unused_parameters_true"}, "strategy", "use ddp, which gives the command"),
        ({"strategy": {"class_path": DDP, "init_args": {"start_method": "fork"}}}, "strategy", "start_method fork: "),
        ({"strategy": "FSDP"}, "strategy", "FSDP1 (fsdp) is not supported"),
        ({"strategy": {"class_path": "lightning.pytorch.strategies.FSDPStrategy"}}, "strategy", "use fsdp2"),
        ({"strategy": "single_xla"}, "strategy", "TPUs are not supported"),
        ({"strategy": "single_device"}, "strategy", "one device is what `auto` takes"),
        ({"accelerator": "gpuu"}, "accelerator", "'gpuu' is no accelerator here; did you mean 'gpu'? (known: auto,"),
        ({"accelerator": "tpu"}, "accelerator", "TPUs are not supported"),
        ({"devices": 0}, "devices", "0: give 1 or more, or -1 for all of a machine"),
        ({"devices": -1, "accelerator": "cpu"}, "devices", "-1: give 1 or more"),
        ({"devices": "0,1", "accelerator": "cpu"}, "devices", "on a CPU it is how many processes"),
        ({"devices": []}, "devices", "names no device; give how many, or auto"),
        ({"devices": "two"}, "devices", "two: expected how many devices of a machine"),
        ({"strategy": "fsdp2", "precision": "16-mixed"}, "precision", "no scaler knows weights that are cut up"),
        ({"strategy": "fsdp2", "precision": 16, "accelerator": "cpu"}, "precision", "Use bf16-mixed"),
    ],
)
def test_what_cannot_work_is_named_with_its_option(trainer: dict[str, Any], option: str, said: str) -> None:
    ((found, problem),) = problems(trainer)
    assert found == option and said in problem


@pytest.mark.parametrize("environment", [{"RANK": "3", "WORLD_SIZE": "4"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}])
def test_a_launchers_processes_are_the_runs_and_other_settings_are_refused(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    started = launcher()
    assert started is not None
    ((option, problem),) = problems({"devices": 3, "num_nodes": 1})
    assert option == "devices"
    assert f"4 processes were started by {started.name}, and trainer.num_nodes" in problem
    assert list(problems({"devices": 4})) == []
    assert ranks_of({}).processes == 4


def test_options_of_a_class_that_was_named_before_them(write: Callable[..., str]) -> None:
    options = ["--trainer.strategy", DDP, "--trainer.strategy.start_method", "spawn"]
    with pytest.raises(InputError, match="start_method spawn: processes that are forked or spawned"):
        check_settings(put_options(load_runs([write("policy: {path: x}")]), options))


def test_a_training_command_refuses_before_torch_and_options_win_over_files(write: Callable[..., str]) -> None:
    file = write("trainer:\n  strategy: ddp_fork\n  devices: 2\n", "run.yaml")
    with pytest.raises(InputError, match=r"run\.yaml:2: trainer\.strategy: ddp_fork: processes"):
        precheck(["--spec", "dpo", "--config", file])
    precheck(["--spec", "dpo", "--config", file, "--trainer.strategy=ddp"])
    with pytest.raises(InputError, match=r"--trainer\.strategy: 'dpp' is no strategy here"):
        precheck(["--spec", "dpo", "--config", file, "--trainer.strategy", "dpp"])
    precheck(["--config", file, "--ckpt_path", "last"])  # whose checkpoint may say something else


def test_check_says_the_same_and_that_deepspeed_is_untested(
    write: Callable[..., str], tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n' * 3, "rows.jsonl")
    file = write(f"policy: {{path: {tiny}}}\ndata: {{train: rows.jsonl}}\n", "run.yaml")
    command = ["check", "dpo", "--config", file, "--trainer.accelerator", "cpu"]
    assert main([*command, "--trainer.strategy", "ddp_spawn"]) == 2
    assert "error: --trainer.strategy: ddp_spawn: processes" in capsys.readouterr().err
    assert main([*command, "--trainer.strategy", "deepspeed_stage_3", "--trainer.devices", "2"]) == 0
    out = capsys.readouterr().out
    assert "DeepSpeed is handed on to Lightning as it is; it is not tested here" in out
    assert "memory: not predicted for this strategy" in out

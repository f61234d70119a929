"""A training step asks its device for nothing: no size, no value, no copy to the host, no collective.

A CPU never makes anybody wait, so what would wait on an accelerator is counted: every call that hands a tensor's
content to Python, every tensor whose size depends on a content, and every tensor made from a number of the host. The
host reads on purpose at the logging interval, once, and that is all that it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lab import Lab, pair_rows, write_rows
from nashtune.evaluation.metrics import Means
from nashtune.training import fit
from nashtune.training.bars import PlainBar, RichBar
from nashtune.training.module import AlignmentModule

READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero", "masked_select"}
COPIES = {"tensor", "as_tensor", "new_tensor", "from_numpy"}
WAITS = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal"),
    *("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount"),
}
INTERVAL, STEPS = 4, 8


class Watch(Callback):
    """Counts what would wait, step by step.

    Attributes:
        found: Of each optimiser step, by name.
    """

    def __init__(self) -> None:
        self.found: dict[int, Counter[str]] = {}
        self._step: Counter[str] | None = None
        self._modes = ExitStack()

    def add(self, name: str) -> None:
        if self._step is not None:
            self._step[name] += 1

    @contextmanager
    def on_the_host(self) -> Iterator[None]:
        """Nothing is counted inside: a batch before it moves to the device."""
        outside, self._step = self._step, None
        yield
        self._step = outside

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self._step = self.found.setdefault(trainer.global_step + 1, Counter())
        self._modes.enter_context(Calls(self))
        self._modes.enter_context(Kernels(self))

    def on_train_batch_end(self, *args: Any) -> None:
        self.close()

    def on_exception(self, *args: Any) -> None:
        self._modes.close()

    def close(self) -> None:
        self._step = None
        self._modes.close()


class Calls(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in READS | COPIES:
            self.watch.add(name)
        return func(*args, **(kwargs or {}))


class Kernels(TorchDispatchMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        by_mask = name == "aten::index" and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        unsized = name == "aten::repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in WAITS or by_mask or unsized:
            self.watch.add(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def watched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains as on an accelerator; what would have waited by step, and the reductions over ranks by step."""

    def train(spec: str, *options: str) -> tuple[dict[int, Counter[str]], Counter[int]]:
        watch, reductions = Watch(), Counter[int]()
        original, transfer, reduced = fit.make_trainer, AlignmentModule.on_before_batch_transfer, Means._reduced
        modules: list[AlignmentModule] = []

        def on_host(module: AlignmentModule, *args: Any) -> Any:
            modules[:] = [module]
            with watch.on_the_host():
                return transfer(module, *args)

        def count(means: Means, *flag: Any) -> Any:
            if modules and modules[0].trainer.training:
                reductions[modules[0].trainer.global_step] += 1
            return reduced(means, *flag)

        monkeypatch.setattr(AlignmentModule, "_reads_each_step", False)
        monkeypatch.setattr(AlignmentModule, "on_before_batch_transfer", on_host)
        monkeypatch.setattr(Means, "_reduced", count)
        monkeypatch.setattr(
            fit,
            "make_trainer",
            lambda cli, folder, callbacks, *rest, **more: original(cli, folder, [watch, *callbacks], *rest, **more),
        )
        lab.fit(
            *("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", str(INTERVAL)),
            *("--trainer.gradient_clip_val", "1.0", *options),
            spec=spec,
        )
        return watch.found, reductions

    return train


def quiet(found: dict[int, Counter[str]], ends: int = INTERVAL) -> None:
    """Nothing waits but at every `ends`-th step, and in the first one, which sees what a model can do."""
    assert len(found) >= 5
    counted = {step: counts for step, counts in found.items() if step % INTERVAL and step % ends and step > 1}
    assert counted and not any(counted.values()), counted


@pytest.mark.parametrize("spec", ["dpo", "cdpo", "ipo", "slic_hinge", "simpo", "orpo", "epsilon_dpo", "kto"])
def test_a_step_reads_nothing_but_at_the_logging_interval(watched: Any, spec: str) -> None:
    found, reductions = watched(spec, *(("--data.batch_tokens", "150") if spec != "kto" else ()))
    quiet(found)
    for step in range(INTERVAL, STEPS + 1, INTERVAL):  # whether everything is finite, and the means, at once
        assert {name: count for name, count in found[step].items() if name in READS} == {"tolist": 1}, found[step]
    if spec != "epsilon_dpo":  # whose beta follows every step, on the device
        assert sum(reductions.values()) == len(found) // INTERVAL


@pytest.mark.parametrize("kind", [PlainBar, RichBar])
def test_what_is_shown_after_a_step_waits_for_nothing_either(
    watched: Any, monkeypatch: pytest.MonkeyPatch, kind: type[Any]
) -> None:
    """A bar that is drawn after every step, and what Lightning does between two of them."""
    monkeypatch.setattr("nashtune.training.bars.SECONDS_BETWEEN_REFRESHES", 0.0)
    monkeypatch.setattr("nashtune.training.trainer.PlainBar", lambda: kind())
    drawn: list[int] = []
    original = kind.get_metrics

    def get_metrics(bar: Any, trainer: Any, module: Any) -> dict[str, Any]:
        drawn.append(trainer.global_step)
        found: dict[str, Any] = original(bar, trainer, module)
        if trainer.global_step != INTERVAL:  # that step's row is read after the bar was drawn
            assert ("train/loss" in found) == (trainer.global_step > INTERVAL)
        return found

    monkeypatch.setattr(kind, "get_metrics", get_metrics)
    monkeypatch.setattr(Watch, "on_train_batch_end", lambda *args: None)  # until the next one begins
    start = Watch.on_train_batch_start

    def begin(watch: Watch, *args: Any) -> None:
        watch.close()
        start(watch, *args)

    monkeypatch.setattr(Watch, "on_train_batch_start", begin)
    monkeypatch.setattr(Watch, "on_train_epoch_end", lambda watch, *args: watch.close(), raising=False)
    monkeypatch.setattr("nashtune.training.saving.Checkpoints._save", lambda *args: None)
    found, _ = watched("dpo", "--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "true")
    assert set(drawn) >= set(range(1, STEPS + 1))
    # the next batch is made in between, of tensors on the host: what counts is who asks for the content of one
    quiet(
        {step: Counter({name: n for name, n in counts.items() if name != "tensor"}) for step, counts in found.items()}
    )


def test_the_bar_is_given_what_was_read_and_not_what_it_would_have_to_fetch(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a number Lightning makes a tensor on the device, and reads it from there, one by one."""
    given: list[Any] = []
    original = AlignmentModule.log

    def log(module: AlignmentModule, name: str, value: Any, **options: Any) -> None:
        given.extend([value] if name.startswith("train/") else [])
        original(module, name, value, **options)

    monkeypatch.setattr(AlignmentModule, "log", log)
    watched("dpo", "--trainer.enable_progress_bar", "true")
    assert len(given) >= 3 * (STEPS // INTERVAL)
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in given)


@pytest.mark.parametrize("engine", ["tiled", "dense"])
def test_padded_batches_tell_transformers_whether_they_have_padding(watched: Any, engine: str) -> None:
    quiet(watched("dpo", "--engine", engine, "--data.batch_size", "2", "--data.limit", "8")[0])


@pytest.mark.parametrize(
    "options",
    [
        ("--spec.references.ref", "cached"),
        (
            *("--policy.precision", "bf16", "--spec.optimizer.rounding", "stochastic"),
            *("--spec.optimizer.name", "adamw", "--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "4"),
        ),
        ("--trainer.precision", "bf16-mixed", "--policy.lora.r", "2"),
    ],
    ids=["cached reference", "stochastic rounding", "autocast and LoRA"],
)
def test_whatever_is_trained_beside_it(watched: Any, options: tuple[str, ...]) -> None:
    quiet(watched("dpo", *options)[0])


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("reward_bt", ("--spec.head.members", "3", "--spec.head.own_order", "true")),
        ("reward_bt_ranked", ()),
        ("reward_pl", ()),
        ("reward_pl", ("--spec.loss.top_1", "true")),
    ],
)
def test_lists_are_cut_by_what_was_counted_on_the_host(
    watched: Any, lab: Lab, spec: str, options: tuple[str, ...]
) -> None:
    if spec != "reward_bt":
        lists = [{"prompt": f"p {i}", "responses": ["a", "b c", "d e f"], "scores": [i % 2, 2, 2]} for i in range(14)]
        for name in ("train", "validation"):
            write_rows(lab.folder / f"{name}.jsonl", lists)
    quiet(watched(spec, *options)[0])


@pytest.fixture
def drawing(lab: Lab, heads: Path) -> Lab:
    """Prompts alone, and three reward heads that judge."""
    write_rows(lab.folder / "train.jsonl", [{"prompt": row["prompt"]} for row in pair_rows(8)])
    run = yaml.safe_load(lab.run_file.read_text())
    del run["data"]["validation"]
    run["spec"]["oracle"] = {"path": str(heads), "members": 3}
    run["data"] |= {"prompts_per_round": 4, "batch_size": 2}
    run["spec"]["sampler"] = {"completions": 4, "max_new_tokens": 6}
    lab.run_file.write_text(yaml.safe_dump(run))
    return lab


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("uncertainty_rlhf", ("--spec.schedule.steps", "1")),
        ("uncertainty_rlhf_pairwise", ("--spec.schedule.rounds", "3")),
        ("ppo_lcb", ("--spec.schedule.steps", "1")),
    ],
)
def test_an_update_reads_at_the_interval_and_at_its_end(
    watched: Any, drawing: Lab, spec: str, options: tuple[str, ...]
) -> None:
    quiet(watched(spec, *options)[0])


def test_the_watch_sees_a_wait(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would prove nothing."""
    original = AlignmentModule._pass
    monkeypatch.setattr(AlignmentModule, "_pass", lambda self, *args: original(self, *args) * float(torch.ones(())))
    found, _ = watched("dpo")
    assert all(found[step] for step in found)

"""A training step asks its device for nothing: no size, no value, no copy to the host, no collective.

A CPU never makes anybody wait, so what would wait on an accelerator is counted: every call that hands a tensor's
content to Python. The host reads on purpose at the logging interval, and that is all that it reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lab import Lab
from nashtune.evaluation.metrics import Means
from nashtune.training import fit
from nashtune.training.module import AlignmentModule

READS = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero", "masked_select"}
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::unique"}
INTERVAL, STEPS = 4, 12


class Watch(Callback):
    """Counts what would wait, step by step.

    Attributes:
        found: Of each optimiser step, by name.
    """

    def __init__(self) -> None:
        self.found: dict[int, Counter[str]] = {}
        self._step: Counter[str] | None = None

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
        self._step = self.found[trainer.global_step + 1] = Counter()

    def on_train_batch_end(self, *args: Any) -> None:
        self._step = None


class Calls(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in READS:
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
        if name in WAITS or by_mask:
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

        def count(means: Means) -> Any:
            if modules and modules[0].trainer.training:
                reductions[modules[0].trainer.global_step] += 1
            return reduced(means)

        monkeypatch.setattr(AlignmentModule, "_reads_each_step", False)
        monkeypatch.setattr(AlignmentModule, "on_before_batch_transfer", on_host)
        monkeypatch.setattr(Means, "_reduced", count)
        monkeypatch.setattr(
            fit, "make_trainer", lambda cli, folder, callbacks, *rest: original(cli, folder, [watch, *callbacks], *rest)
        )
        with Calls(watch), Kernels(watch):
            lab.fit(
                *("--trainer.max_epochs", "3", "--trainer.log_every_n_steps", str(INTERVAL)),
                *("--trainer.limit_val_batches", "0", "--trainer.gradient_clip_val", "1.0", *options),
                spec=spec,
            )
        return watch.found, reductions

    return train


@pytest.mark.parametrize("spec", ["dpo", "cdpo", "ipo", "slic_hinge", "simpo", "orpo", "epsilon_dpo"])
def test_a_step_reads_nothing_but_at_the_logging_interval(watched: Any, spec: str) -> None:
    found, reductions = watched(spec, "--data.batch_tokens", "150")
    assert set(found) == set(range(1, STEPS + 1))
    quiet = {step: counts for step, counts in found.items() if step % INTERVAL and step > 1}
    assert quiet and not any(quiet.values()), quiet
    for step in range(INTERVAL, STEPS + 1, INTERVAL):  # is everything finite, and the means
        assert found[step]["tolist"] == 1 and found[step]["__bool__"] == 1, found[step]
    if spec != "epsilon_dpo":  # whose beta follows every step, on the device
        assert sum(reductions.values()) == STEPS // INTERVAL


def test_cached_references_are_found_on_the_host(watched: Any) -> None:
    found, _ = watched("dpo", "--spec.references.ref", "cached")
    assert not any(counts for step, counts in found.items() if step % INTERVAL and step > 1)


def test_the_watch_sees_a_wait(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would prove nothing."""
    original = AlignmentModule._pass
    monkeypatch.setattr(AlignmentModule, "_pass", lambda self, *args: original(self, *args) * float(torch.ones(())))
    found, _ = watched("dpo")
    assert all(found[step] for step in found)

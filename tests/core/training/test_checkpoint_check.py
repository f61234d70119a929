"""Checkpoints that are whole files and hold what no run has saved: nothing is trained with them."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lab import Lab
from nashtune.cli.main import main
from nashtune.training.checkpoint import newest_checkpoint
from nashtune.training.module import AlignmentModule

NORM = "model.norm.weight"
GONE = object()


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    """Change one part; `value` may be made of what was there."""

    def change(content: Any) -> None:
        for name in path[:-1]:
            content = content[name]
        if value is GONE:
            del content[path[-1]]
        else:
            content[path[-1]] = value(content.get(path[-1])) if callable(value) else value

    return change


STATE = ("optimizer_states", 0, "state")
GROUP = ("optimizer_states", 0, "param_groups", 0)
COUNTS = ("loops", "fit_loop", "epoch_loop.batch_progress")
LOADER = ("PreferenceData", "train_loader")
CONFIG = ("nashtune", "config")

BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "no optimizer": (put("optimizer_states", value=[]), "optimizer_states is []"),
    "an optimizer's number": (put("optimizer_states", value=[7]), "optimizer_states is [7]"),
    "one state less": (put(*STATE, 3, value=GONE), "state of 19 weights, and was saved with [20]"),
    "no state": (put(*STATE, value={}), "state of 0 weights, and was saved with [20]"),
    "a state of nobody": (put(*STATE, value=lambda old: {**old, 99: old[0]}), "state has 99, which is none"),
    "a state's number": (put(*STATE, 3, value=7), "not one mapping for each weight"),
    "a moment's shape": (put(*STATE, 3, "exp_avg", value=torch.ones(3)), "exp_avg is (3,), and its weight is (16, 32)"),
    "a moment's type": (put(*STATE, 3, "exp_avg", value="x"), "exp_avg is 'x' and no tensor"),
    "a moment's dtype": (put(*STATE, 3, "exp_avg", value=lambda old: old.long()), "exp_avg is torch.int64"),
    "a moment in halves": (put(*STATE, 3, "exp_avg", value=lambda old: old.half()), "exp_avg is torch.float16"),
    "a moment gone": (put(*STATE, 3, "exp_avg", value=GONE), "exp_avg is None"),
    "a step's type": (put(*STATE, 3, "step", value="x"), "step is 'x' and no count"),
    "no groups": (put("optimizer_states", 0, "param_groups", value=[]), "param_groups is []"),
    "a weight less": (put(*GROUP, "params", value=lambda old: old[:-1]), "optimizer_states is of 19 weights"),
    "no lr": (put(*GROUP, "lr", value="x"), "lr is 'x' and no number"),
    "betas": (put(*GROUP, "betas", value=["x", 0.9]), "betas is ['x', 0.9] and no setting"),
    "no schedule": (put("lr_schedulers", value=[]), "lr_schedulers is []"),
    "a schedule's number": (put("lr_schedulers", 0, value=7), "lr_schedulers is [7]"),
    "a schedule's epoch": (put("lr_schedulers", 0, "last_epoch", value="x"), "last_epoch is 'x' and no count"),
    "a schedule's rates": (put("lr_schedulers", 0, "base_lrs", value=7), "base_lrs is 7"),
    "a schedule's method": (put("lr_schedulers", 0, "get_lr", value=7), "has 'get_lr', which no schedule keeps"),
    "whole numbers": (put("state_dict", NORM, value=lambda old: old.long()), f"{NORM} is torch.int64"),
    "complex": (put("state_dict", NORM, value=lambda old: old.cfloat()), f"{NORM} is torch.complex64"),
    "halves": (put("state_dict", NORM, value=lambda old: old.half()), f"{NORM} is torch.float16, and the run trains"),
    "expanded": (put("state_dict", NORM, value=torch.ones(()).expand(32)), "of which some share one place"),
    "a whole name": (put("state_dict", 7, value=torch.ones(2)), "state_dict has 7: Tensor"),
    "no place": (put("PreferenceData", value=GONE), "neither PreferenceData nor GameData"),
    "a place's number": (put("PreferenceData", value=3), "PreferenceData is 3, without train_loader"),
    "another's place": (lambda c: c.update(GameData={"game": {"update": 0, "step": 0}}, PreferenceData=3), "is 3"),
    "no loader": (put(*LOADER, value=GONE), "without train_loader"),
    "rows below 0": (put(*LOADER, "samples", value=-7), "samples is -7 and no count"),
    "many rows": (put(*LOADER, "samples", value=1e20), "samples is 1e+20 and no count"),
    "two places": (put(*LOADER, "samples", value=4), "combined_loader is not what PreferenceData.train_loader is"),
    "no loops": (put("loops", value={}), "loops.fit_loop is None"),
    "a loop's number": (put("loops", value=7), "loops is 7 and no mapping"),
    "nothing for loops": (put("loops", value=None), "loops is None and no mapping"),
    "no counts": (put(*COUNTS, value=GONE), "epoch_loop.batch_progress is None"),
    "words for counts": (put(*COUNTS, "total", "ready", value="x"), "batch_progress.total.ready is 'x'"),
    "other steps": (put("global_step", value=7), "global_step is 7, and loops has 2 optimiser steps"),
    "listed callbacks": (put("callbacks", value=[]), "callbacks is [] and no mapping"),
    "no callbacks": (put("callbacks", value=GONE), "has no callbacks, so training cannot go on"),
    "no version": (put("pytorch-lightning_version", value=GONE), "has no pytorch-lightning_version, so"),
    "a word for a version": (put("pytorch-lightning_version", value="x"), "pytorch-lightning_version is 'x'"),
    "a number for a version": (put("pytorch-lightning_version", value=9), "pytorch-lightning_version is 9"),
    "an attempt": (put("nashtune_attempts", value=[7]), "nashtune_attempts has 7"),
    "attempts": (put("nashtune_attempts", value=7), "nashtune_attempts has 7"),
    "one attempt without a list": (put("nashtune_attempts", value=lambda old: old[0]), "which is no attempt's share"),
    "an attempt's words": (put("nashtune_attempts", 0, "steps", value="x"), "which is no attempt's share"),
    "a trainer's number": (put(*CONFIG, "trainer", value=7), "the run's trainer is 7 and no section"),
    "samples' number": (put(*CONFIG, "samples", value=5), "the run's samples is 5 and no section"),
    "no generators": (put("nashtune", "random", value=7), "nashtune.random is 7"),
    "a generator": (put("nashtune", "random", 0, "torch", value=torch.ones(3)), "random generators cannot be set"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves its run for the others."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def run(lab: Lab, kept: Path) -> Path:
    """A run that was stopped after two of its steps."""
    if not (kept / "run").exists():
        lab.fit("--trainer.max_steps", "2", "--spec.optimizer.name", "adamw")
        shutil.move(lab.folder / "run", kept / "run")
    shutil.copytree(kept / "run", lab.folder / "run", dirs_exist_ok=True)
    return lab.folder / "run"


@pytest.mark.parametrize("name", BROKEN)
def test_what_no_run_has_saved_is_refused(
    run: Path, name: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = newest_checkpoint(run)
    content = torch.load(path, weights_only=True)
    BROKEN[name][0](content)
    torch.save(content, path)
    trained: list[int] = []
    monkeypatch.setattr(AlignmentModule, "training_step", lambda *_: trained.append(1))
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "3")
    assert BROKEN[name][1] in message and ("restore it from a copy" in message or "has no" in message), message
    assert not trained


def test_a_run_of_before_that_says_less_goes_on(run: Path, lab: Lab) -> None:
    path = newest_checkpoint(run)
    content = torch.load(path, weights_only=True)
    older = copy.copy(content)
    del older["nashtune"]["states"], older["nashtune_attempts"]
    torch.save(older, path)
    lab.fit("--ckpt_path", "last", "--trainer.max_steps", "3", spec=None)
    assert newest_checkpoint(run).name == "step=3.ckpt"


@pytest.mark.parametrize("value", [7, torch.ones(32).long(), torch.ones(()).expand(32)], ids=["key", "dtype", "shared"])
def test_an_evaluation_refuses_them_too(lab: Lab, run: Path, refused: Callable[..., str], value: Any) -> None:
    path = newest_checkpoint(run)
    assert main(["validate", "--ckpt_path", str(path), "--config", str(lab.run_file)]) == 0
    content = torch.load(path, weights_only=True)
    content["state_dict"][7 if isinstance(value, int) else NORM] = torch.ones(2) if isinstance(value, int) else value
    torch.save(content, path)
    assert "was altered" in refused("validate", "--ckpt_path", str(path), "--config", str(lab.run_file))

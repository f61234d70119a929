"""A disk that is too small is met before the model loads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import Lab
from nashtune.models.policy import HFPolicy
from nashtune.training import room
from nashtune.training.checkpoint import checkpoints_in

LEAST = 12 * (262 * 32 + 2 * (32 * 96 + 3 * 32 * 64))
ADAMW = ("--spec.optimizer.name", "adamw")
SHORT = (*ADAMW, "--trainer.max_steps", "2")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """So many bytes are free."""
    return lambda size: monkeypatch.setattr(room, "free_space", lambda folder: size)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a model loads."""

    def load(policy: HFPolicy) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(HFPolicy, "load", load)


def fit(lab: Lab, *options: str, spec: str = "dpo") -> list[str]:
    return ["fit", "--spec", spec, "--config", str(lab.run_file), "--run_dir", str(lab.folder / "run"), *options]


def test_a_checkpoint_that_has_no_room_is_refused_and_nothing_is_left(
    lab: Lab, free: Callable[[int], None], refused: Callable[..., str], no_model: None
) -> None:
    free(LEAST - 1)
    message = refused(*fit(lab, *SHORT))
    assert f"--run_dir: {lab.folder / 'run'}: 322 kB are free there" in message
    assert "the first checkpoint takes at least 322 kB, so nothing could be saved" in message
    assert "--run_dir /LARGE/NAME" in message and "--policy.lora.r 16" in message
    assert not (lab.folder / "run").exists()


def test_an_adapter_needs_less_and_is_not_advised_twice(
    lab: Lab, free: Callable[[int], None], refused: Callable[..., str], no_model: None
) -> None:
    free(1000)
    message = refused(*fit(lab, *SHORT, "--policy.lora.r", "2"))
    assert "takes at least 24.6 kB" in message and "policy.lora" not in message


def test_a_game_also_needs_its_start(
    lab: Lab, free: Callable[[int], None], refused: Callable[..., str], no_model: None
) -> None:
    lab.become_game()
    free(LEAST)
    assert "the first checkpoint and the snapshot that a game begins with takes" in refused(
        *fit(lab, *ADAMW, spec="onpo")
    )


def test_room_for_one_checkpoint_is_enough_to_begin(
    lab: Lab, free: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """And said once; a run that goes on owns what it has saved, and is let through where it only has to finish."""
    free(LEAST)
    with caplog.at_level(logging.INFO):
        run = lab.fit(*SHORT)
    (said,) = [record.message for record in caplog.records if "are free there" in record.message]
    assert "322 kB are free there, and the run needs up to 480 kB (366 kB a checkpoint, 1 kept" in said
    assert list(checkpoints_in(run)) == [2]
    free(0)
    lab.fit(*SHORT, "--ckpt_path", "last")  # nothing is left to train


def test_a_run_that_goes_on_needs_room_beside_what_it_has(
    lab: Lab, free: Callable[[int], None], refused: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    run = lab.fit(*SHORT)
    onwards = ("--ckpt_path", "last", "--trainer.max_steps", "3")
    free(LEAST - 1)
    assert "nothing could be saved" in refused(*fit(lab, *SHORT, *onwards))
    (run / "checkpoints" / ".step=3.ckpt.partial").write_bytes(bytes(150_000))  # of a kill: it goes first
    with caplog.at_level(logging.INFO):
        lab.fit(*SHORT, *onwards)
    assert not [record for record in caplog.records if "are free there" in record.message]
    assert list(checkpoints_in(run)) == [3]


def test_the_checkpoint_that_a_run_goes_on_from_stays_until_the_only_one_to_come_is_whole(
    lab: Lab, free: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    lab.fit(*SHORT)
    free(LEAST)
    with caplog.at_level(logging.INFO):
        lab.fit(*SHORT, "--ckpt_path", "last", "--trainer.max_steps", "3")
    (said,) = [record.message for record in caplog.records if "are free there" in record.message]
    assert "322 kB are free there, and the run needs up to 36" in said  # kB, of a second one


@pytest.mark.parametrize(
    ("session", "trainer", "steps", "game", "expected"),
    [
        ({}, {}, 10, False, True),
        ({}, {}, None, True, True),
        ({}, {"max_steps": 0}, 10, False, False),
        ({}, {"limit_train_batches": 0}, 10, False, False),
        ({"resumed": Path("run")}, {}, 10, False, True),  # begins again: it had saved nothing
        ({"resumed": Path("run")}, {}, None, True, False),
        ({"checkpoint": Path("step=10.ckpt")}, {}, 10, False, False),
        ({"checkpoint": Path("step=9.ckpt")}, {}, 10, False, True),
        ({"checkpoint": Path("mine.ckpt")}, {}, 10, False, False),
        ({"checkpoint": Path("step=9.ckpt")}, {}, None, True, False),
    ],
)
def test_only_what_is_certain_to_save_is_refused(
    session: dict[str, Any], trainer: dict[str, Any], steps: int | None, game: bool, expected: bool
) -> None:
    given: Any = SimpleNamespace(**{"checkpoint": None, "resumed": None, **session})
    limits: Any = SimpleNamespace(**{"max_steps": -1, "limit_train_batches": 1.0, **trainer})
    assert room._saves(given, limits, steps, game=game) is expected

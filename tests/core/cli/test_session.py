"""A game that was stopped before its first checkpoint, and whose configuration was altered since."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from lab import Lab
from nashtune.errors import InputError
from nashtune.spec.resolve import resolve

HUGE = 10**30


def begun(lab: Lab, text: str) -> tuple[str, ...]:
    """The command that goes on with what was begun with a configuration."""
    (lab.folder / "run" / "snapshots").mkdir(parents=True)
    (lab.folder / "run" / "config.yaml").write_text(text)
    return "fit", "--ckpt_path", "last", "--run_dir", "run"


def config(**changes: Any) -> str:
    return yaml.safe_dump({"spec": resolve("inpo").to_dict(), "policy": {}, "data": {}} | changes)


@pytest.mark.parametrize(
    "text",
    ["", "12", "[]", "null", "spec: dpo", *(config(**{key: 7}) for key in ("spec", "policy", "data"))],
)
@pytest.mark.parametrize("ckpt_path", ["last", "auto"])
def test_a_configuration_that_is_none(lab: Lab, refused: Callable[..., str], text: str, ckpt_path: str) -> None:
    command = begun(lab, text)
    message = refused(*command[:2], ckpt_path, *command[3:])
    assert "run/config.yaml: was cut short or altered" in message and "restore it from a copy" in message


@pytest.mark.parametrize("spec", ["inpo", "onpo", "ppo", "nash_md_pg"])
def test_more_rounds_than_can_be_listed(lab: Lab, refused: Callable[..., str], spec: str) -> None:
    plain = resolve(spec).to_dict()
    (name,) = {"rounds", "steps"} & plain["schedule"].keys()
    plain["schedule"][name] = HUGE
    begin = time.monotonic()
    message = refused(*begun(lab, config(spec=plain)))
    assert f"schedule.{name}: more rounds than can be listed; give 1000000 or fewer" in message
    assert time.monotonic() - begin < 30
    plain["schedule"][name] = 1_000_000
    assert resolve(plain).schedule.args[name] == 1_000_000
    with pytest.raises(InputError, match="more rounds than can be listed"):
        resolve(plain | {"schedule": plain["schedule"] | {name: 1_000_001}})


@pytest.mark.parametrize("option", ["max_epochs", "accumulate_grad_batches"])
def test_more_passes_than_can_be_counted(lab: Lab, refused: Callable[..., str], option: str) -> None:
    lab.become_game()
    game = ("fit", "--spec", "inpo", "--config", "run.yaml", "--run_dir", "new")
    message = refused(*game, f"--trainer.{option}", str(HUGE))
    assert f"trainer.{option}" in message and "more micro-batches than can be counted" in message
    assert not (lab.folder / "new").exists()

"""The same message of several processes of a run is printed by one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nashtune import once
from nashtune.errors import InputError
from nashtune.once import AlreadySaid, said_once

FAIL = "from nashtune.once import said_once\nfrom nashtune.errors import InputError\nimport sys\n"
FAIL += "try:\n    with said_once():\n        raise InputError(sys.argv[1])\n"
FAIL += "except InputError as error:\n    print(type(error).__name__)\n"


@pytest.fixture(autouse=True)
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As torchrun starts two processes; what this one says is forgotten afterwards."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", f"test-{os.getpid()}")
    monkeypatch.setattr(once, "LATER", 0.0)
    monkeypatch.setattr(once.atexit, "register", lambda *args: None)
    yield
    for held in once._held.values():
        held.close()
    once._held.clear()


def say(message: str) -> None:
    with said_once():
        raise InputError(message)


def other(message: str) -> str:
    """What another process of the run raises."""
    found = subprocess.run([sys.executable, "-c", FAIL, message], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that go with their process")
def test_the_second_process_is_silent_and_another_message_is_not() -> None:
    with pytest.raises(InputError) as first:
        say("run.yaml:1: no such option")
    assert type(first.value) is InputError
    assert other("run.yaml:1: no such option") == "AlreadySaid"
    assert other("run.yaml:2: no such file") == "InputError"
    with pytest.raises(InputError) as again:
        say("run.yaml:1: no such option")
    assert type(again.value) is InputError


def test_a_run_of_one_process_says_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(InputError):
        say("x")
    assert not once._held


def test_what_was_said_already_has_no_line_to_print() -> None:
    error = AlreadySaid("text")
    assert error.lines == [] and str(error) == "text"

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nashtune.errors import InputError
from nashtune.training import lock
from nashtune.training.lock import LOCK, RankLock, hold, refuse_if_in_use


def test_one_holds_it_and_it_says_who(tmp_path: Path) -> None:
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
        with pytest.raises(InputError, match=rf"in use: process {os.getpid()} on {socket.gethostname()} is training"):
            with hold(tmp_path):
                raise AssertionError
        with pytest.raises(InputError, match=rf"in use: process {os.getpid()} on "):
            refuse_if_in_use(tmp_path)
    refuse_if_in_use(tmp_path)
    with hold(tmp_path):
        pass


def test_asking_whether_a_folder_is_in_use_writes_nothing(tmp_path: Path) -> None:
    refuse_if_in_use(tmp_path)
    refuse_if_in_use(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_ranks_that_outlive_their_rank_0_keep_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    ranks = [RankLock(tmp_path) for _ in range(2)]
    for number, one in enumerate(ranks, start=1):
        trainer = SimpleNamespace(global_rank=number, strategy=SimpleNamespace(launcher=None))
        one.setup(trainer, None, "fit")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="processes of an earlier attempt are still at work"):
        with hold(tmp_path):
            raise AssertionError
    for one in ranks:
        one.release()
    with hold(tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_rank_dies_with_its_rank_0_until_the_run_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards its exit functions are called, and nothing cuts them off."""

    def dies_by() -> int:
        found = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(found))  # PR_GET_PDEATHSIG
        return found.value

    monkeypatch.setenv(lock.RUN_DIR_VARIABLE, str(tmp_path))
    launcher = object.__new__(lock._SubprocessScriptLauncher)
    rank = RankLock(tmp_path)
    rank.setup(SimpleNamespace(global_rank=1, strategy=SimpleNamespace(launcher=launcher)), None, "fit")  # type: ignore[arg-type]
    assert dies_by() == signal.SIGKILL
    rank.release()
    assert dies_by() == 0


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.INFO), hold(tmp_path):
        pass
    assert "the file system has no locks" in caplog.text


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"), hold(tmp_path / "file"):
        raise AssertionError

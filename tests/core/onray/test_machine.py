"""The processes of one machine: started, read, signalled, and gone with the actor. All of it without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nashtune.onray.machine import Ended, Machine, Said
from ranks import free_port

READY = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"


def started(machine: Machine, command: list[str], folder: Path, processes: int = 2) -> Iterator[Said | Ended]:
    return machine.run(
        command, str(folder), {}, machine=0, machines=1, processes=processes, meeting=("127.0.0.1", free_port())
    )


def texts(events: list[Said | Ended], rank: int, stream: int) -> bytes:
    return b"".join(e.text for e in events if isinstance(e, Said) and (e.rank, e.stream) == (rank, stream))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Takes the place of Python: runs `script` in the working directory."""
    file = tmp_path / "shell"
    file.write_text("#!/bin/sh\n. ./script\n")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))
    return tmp_path / "script"


def test_every_process_runs_the_command_to_its_end(tmp_path: Path) -> None:
    events = list(started(Machine(), ["list", "--runs"], tmp_path))
    assert {e for e in events if isinstance(e, Ended)} == {Ended(0, 0), Ended(1, 0)}
    assert texts(events, 0, 1) == texts(events, 1, 1) != b""
    assert all(e.text.endswith(b"\n") for e in events if isinstance(e, Said) and e.rank == 1)


def test_a_refusal_is_said_once_and_its_code_is_the_commands(tmp_path: Path) -> None:
    events = list(started(Machine(), ["fit", "--spec", "dpoo", "--trainer.devices", "2"], tmp_path))
    assert [e.code for e in events if isinstance(e, Ended)] == [2, 2]
    said = texts(events, 0, 2) + texts(events, 1, 2)
    assert said.count(b"no spec is called 'dpoo'; did you mean 'dpo'?") == 1


def test_output_comes_before_the_end_and_stderr_is_apart(shell: Path) -> None:
    shell.write_text("printf 'a line'; echo wrong >&2; exit 3")
    events = list(started(Machine(), [], shell.parent, processes=1))
    assert texts(events, 0, 1) == b"a line" and texts(events, 0, 2) == b"wrong\n"
    assert events[-1] == Ended(0, 3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 7), (signal.SIGKILL, -9)])
def test_a_signal_reaches_all_processes(number: int, code: int, shell: Path) -> None:
    shell.write_text(READY)
    machine = Machine()
    events = started(machine, [], shell.parent)
    assert {next(events), next(events)} == {Said(0, 1, b"ready\n"), Said(1, 1, b"ready\n")}
    machine.pass_on(number)
    assert sorted((e.rank, e.code) for e in events if isinstance(e, Ended)) == [(0, code), (1, code)]
    machine.pass_on(number)  # nobody is there


def test_a_folder_that_is_not_on_the_machine_is_named(tmp_path: Path) -> None:
    said, ended = started(Machine(), ["list"], tmp_path / "elsewhere")
    assert isinstance(said, Said) and b"there is no folder " in said.text and b"all machines share" in said.text
    assert ended == Ended(0, 2)


def test_a_port_is_free() -> None:
    assert 1024 <= Machine().free_port() < 65536


def test_a_process_hears_ctrl_c_though_the_actor_blocks_and_ignores_it(tmp_path: Path) -> None:
    """A process inherits both."""
    script = (
        "import os, signal\n"
        "from nashtune.onray import process\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "try:\n    process.begin(os.getppid())\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "heard\n", done.stderr


def test_a_process_dies_with_the_actor_and_never_begins_after_it(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; from nashtune.onray import process\n"
        "process.begin(os.getppid() + int(sys.argv[1]))\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    actor = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"
    assert subprocess.run([sys.executable, "-c", actor, child, "1"]).returncode == 1  # another process by now
    with subprocess.Popen([sys.executable, "-c", actor, child, "0"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return os.path.exists(f"/proc/{pid}")

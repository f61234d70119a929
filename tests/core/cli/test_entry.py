"""How the process of a command ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ranks import free_port

ALONE = """
import atexit, sys, threading, time
from nashtune.cli import entry
atexit.register(print, "exit function")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
"""
MET = ALONE + "import torch.distributed as dist\ndist.init_process_group('gloo')\n"

# The last exit function holds the interpreter's lock without a break, as the end of a busy process may do for a moment.
# Meanwhile rank 0 comes to the call that rank 1 left behind, and a thread of gloo wants the lock to drop its tensor.
DROPPED_LATE = """
import atexit, ctypes, time
atexit.register(ctypes.PyDLL(None).usleep, 1_500_000)
import torch
import torch.distributed as dist
from nashtune.cli import entry
dist.init_process_group("gloo")
dist.barrier()

def call():
    tensor = torch.ones(4)
    dist.all_reduce(tensor, async_op=True)

if dist.get_rank() == 0:
    time.sleep(0.7)
call()
entry.leave(0)
"""


def process(code: str, *, rank: int = 0, ranks: int = 1, port: int = 0) -> subprocess.Popen[str]:
    told = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        # of torch its errors alone: what it remarks about a machine's network is not ours
        env={**os.environ, **told, "GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(code: str) -> tuple[int, str, str]:
    begun = process(code, port=free_port())
    said, complained = begun.communicate(timeout=120)
    return begun.returncode, said, complained


def test_a_finished_rank_is_not_aborted_by_a_thread_that_drops_its_last_tensor_late():
    port = free_port()
    ranks = [process(DROPPED_LATE, rank=rank, ranks=2, port=port) for rank in (0, 1)]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said


@pytest.mark.parametrize("start", [ALONE, MET], ids=["alone", "met"])
@pytest.mark.parametrize(
    ("code", "number", "complaint"),
    [("0", 0, ""), ("None", 0, ""), ("143", 143, ""), ("'why'", 1, "why\n"), ("[2]", 1, "[2]\n")],
)
def test_threads_and_exit_functions_come_first_then_the_code(start: str, code: str, number: int, complaint: str):
    found = ended(f"{start}entry.leave({code})")
    assert found == (number, "thread\nexit function\n", complaint)


@pytest.mark.parametrize("start", [ALONE, MET], ids=["alone", "met"])
@pytest.mark.parametrize(
    ("body", "number", "complaint"),
    [
        ("return 2", 2, ""),
        ("raise SystemExit(143)", 143, ""),
        ("raise SystemExit", 0, ""),
        ("raise RuntimeError('ours')", 1, "RuntimeError: ours\n"),
    ],
)
def test_a_command_ends_with_its_code_and_its_traceback(start: str, body: str, number: int, complaint: str):
    found = ended(f"{start}def main():\n    {body}\nentry.main = main\nentry.entry()")
    assert found[:2] == (number, "thread\nexit function\n")
    assert found[2].endswith(complaint) and ("Traceback" in found[2]) == bool(complaint)


def test_output_that_nobody_reads_any_more_is_no_error():
    met = MET.replace('print("thread")', "None")
    begun = process(f"{met}entry.leave(0)", port=free_port())
    assert begun.stdout is not None and begun.stderr is not None
    begun.stdout.close()
    assert begun.wait(120) == 0
    with begun.stderr as complaints:
        assert complaints.read() == ""


def test_what_was_written_to_an_open_file_is_in_it(tmp_path: Path):
    keep = f"kept = open({str(tmp_path / 'kept')!r}, 'w'); kept.write('all')\nentry.leave(0)"
    assert ended(f"{MET}{keep}")[0] == 0
    assert (tmp_path / "kept").read_text() == "all"


def test_a_closed_stream_is_no_error():
    assert ended(f"{MET}sys.stdout.close(); sys.stderr = None\nentry.leave(3)")[0] == 3

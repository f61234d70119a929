"""A vLLM server beside a measured process: started for it, stopped after it, its CPU seconds counted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START = 600.0  # seconds that a server may take to start; its first start compiles


@dataclass
class Server:
    """A running server.

    Args:
        url: Its address.
        group: Its process group; None for one that somebody else started.
    """

    url: str
    group: int | None

    def cpu(self) -> float:
        """CPU seconds of all its processes so far; 0 for one that somebody else started."""
        return 0.0 if self.group is None else sum(_seconds(stat, self.group) for stat in Path("/proc").glob("[0-9]*"))


@contextmanager
def beside(vllm: str, model: Path, *, longest: int, threads: int, log: Path) -> Iterator[Server]:
    """The server at an address, or one of a model in float32 that has answered its first requests.

    A server serves many rounds, and its first answers take up to eleven seconds here: they are no part of a round.

    Args:
        vllm: `http://HOST:PORT`, or the program `vllm` of an environment.
        model: Folder.
        longest: Tokens of its longest sequence.
        threads: For its matrix products.
        log: Where its output goes.

    Raises:
        RuntimeError: it does not start.
    """
    if vllm.startswith(("http://", "https://")):
        yield Server(vllm, None)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    settings |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # engine and HTTP in one process: two wait for each other on two cores (drawing took 2.8 s then, 1.7 s so)
    settings |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    given = ("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", str(longest))
    # a seeded request whose prompt is read in two pieces ends vLLM 0.32 on a CPU: its generators have no offset
    given += ("--max-num-batched-tokens", str(max(16_384, longest)), "--disable-log-stats")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [vllm, "serve", str(model), *given],
            env={**os.environ, **settings},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, f"{url}/health", log)
        _warm(url, model)
        yield Server(url, process.pid)
    finally:
        # its engine runs in a child process, which is in the same group
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    lines = log.read_text(errors="replace").strip().splitlines() or [""]
    raise RuntimeError("\n".join(["the vLLM server did not start", *lines[-15:]]))


def _warm(url: str, model: Path) -> None:
    """One request of each kind that the sampler makes, twice: compiled for one sequence and for several."""
    for asked in ({"prompt_logprobs": 0, "max_tokens": 1}, {"logprobs": 0, "max_tokens": 8, "seed": 0}):
        for prompts in ([[1, 2, 3, 4]], [[1, 2, 3, 4], [5, 6, 7, 8]]):
            body = json.dumps({"model": str(model), "prompt": prompts, "temperature": 1.0, **asked}).encode()
            request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=START) as answer:
                answer.read()


def _seconds(process: Path, group: int) -> float:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return 0.0
    # after the name: state, parent, group, ..., user and system time at 11 and 12
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if int(fields[2]) == group else 0.0

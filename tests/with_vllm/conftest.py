"""vLLM servers with tiny models, started and stopped by the tests. Run with `make test-vllm`."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nashtune.testing import tiny_model

# `make test` has no vLLM; `make test-vllm` has
collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]

START = 300  # seconds that a server may take to start
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
OPTIONS = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "256"]


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[str]:
    """A server of a model folder, on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    program = Path(sys.executable).with_name("vllm")
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "serve", folder, "--host", "127.0.0.1", "--port", str(port), *OPTIONS, *options],
            env={**os.environ, **ENVIRONMENT},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, f"{url}/health", log)
        yield url
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
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")


# hidden 128 with 4 heads: the CPU build's attention needs a head dimension that is a multiple of 32
@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "untied", hidden=128, tie=False)


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tied", hidden=128, tie=True)


@pytest.fixture(scope="module")
def processed(untied: Path) -> Iterator[str]:
    """A server of the untied model that gives processed log-probs."""
    with serve(untied, "--logprobs-mode", "processed_logprobs") as url:
        yield url


@pytest.fixture(scope="module")
def plain(tied: Path) -> Iterator[str]:
    """A server of the tied model with vLLM's default log-probs."""
    with serve(tied) as url:
        yield url

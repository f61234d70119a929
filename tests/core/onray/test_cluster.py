"""Runs on a real Ray of this machine: the bits of torchrun, signals, and nobody left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lab import Lab
from ranks import DDP, fit_on_ranks, free_port

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the package ray: pip install 'nashtune[ray]'")

OFFLINE = ("--spec", "dpo", "--data.batch_size", "2")
TWO = ("--trainer.devices", "2", *DDP)


@dataclass
class Cluster:
    """A Ray of two machines, both of them this one, with a CPU each and one to spare on the first."""

    environ: dict[str, str]
    folder: Path
    commands: list[subprocess.Popen[bytes]]

    def start(self, *options: str) -> None:
        """`ray start`, until it says that it is up."""
        number = len(self.commands)
        log = self.folder / f"{number}.log"
        words = ["start", "--block", *options, "--disable-usage-stats", f"--object-store-memory={80 * 2**20}"]
        self.commands.append(self._open([sys.executable, "-m", "ray.scripts.scripts", *words], log))
        wait_for(lambda: b"Ray runtime started" in log.read_bytes(), self.commands[-1], log)

    def nashtune(self, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
        """Start `nashtune ray ARGUMENTS`; it writes `ray.log`."""
        command = [sys.executable, "-P", "-m", "nashtune", "ray", *arguments]
        return self._open(command, folder / "ray.log", cwd=folder)

    def fit(self, lab: Lab, *options: str, run: str = "run") -> subprocess.Popen[bytes]:
        """Start a run of two processes under Ray."""
        return self.nashtune("fit", *options, "--run_dir", run, *TWO, folder=lab.folder)

    def _open(self, command: list[str], log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=self.environ, cwd=cwd)

    def stop(self) -> None:
        """`ray start --block` ends what it has started when it is told to end."""
        for command in reversed(self.commands):
            command.terminate()
            command.wait(60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    port = free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": f"127.0.0.1:{port}"},
        **{"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    }
    folder = Path(tempfile.mkdtemp(prefix="nt", dir="/tmp"))  # Ray's sockets need a short path
    cluster = Cluster(environ, folder, [])
    local = ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}"]
    try:
        cluster.start("--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", *local)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


def wait_for(condition: object, command: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert command.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def begun(lab: Lab, command: subprocess.Popen[bytes]) -> int:
    """Wait for the first checkpoint of a run; the process of rank 0."""
    run = lab.folder / "run"
    wait_for(lambda: list(run.glob("checkpoints/step=*.ckpt")), command, lab.folder / "ray.log")
    return int(json.loads((run / ".lock").read_bytes())["pid"])


def expect_equal_runs(lab: Lab, run: str, true: str) -> None:
    """The same weights and the same logged losses, bit for bit."""
    ours, theirs = (load_file(lab.folder / one / "export" / "model.safetensors") for one in (run, true))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], value) for name, value in theirs.items())
    losses = [lab.metrics(lab.folder / one).series["train/loss"] for one in (run, true)]
    assert losses[0] == losses[1] and [at for at, _ in losses[0]] == list(range(1, len(losses[0]) + 1))


def test_a_run_has_the_bits_of_torchrun(cluster: Cluster, lab: Lab) -> None:
    options = ("--config", str(lab.run_file), *OFFLINE)
    fit_on_ranks(["fit", *options, "--run_dir", "alone"], lab.folder)
    command = cluster.fit(lab, *options)
    assert command.wait(200) == 0, (lab.folder / "ray.log").read_text()
    expect_equal_runs(lab, "run", "alone")
    machine = json.loads((lab.folder / "run" / "environment.json").read_bytes())["machine"]
    assert (machine["launcher"], machine["ranks"], machine["nodes"]) == ("Ray", 2, 1)


def test_sigterm_saves_the_step_and_the_run_goes_on_to_the_same_bits(cluster: Cluster, lab: Lab) -> None:
    options = ("--config", str(lab.run_file), *OFFLINE, "--save_every", "1", "--trainer.max_epochs", "6")
    fit_on_ranks(["fit", *options, "--run_dir", "alone"], lab.folder)
    command = cluster.fit(lab, *options)
    begun(lab, command)
    command.send_signal(signal.SIGTERM)
    assert command.wait(100) == 143, (lab.folder / "ray.log").read_text()
    (kept,) = (lab.folder / "run").glob("checkpoints/step=*.ckpt")
    said = (lab.folder / "ray.log").read_text()
    assert f"the newest checkpoint is {kept.name}; go on with: nashtune fit --ckpt_path last" in said
    command = cluster.fit(lab, "--ckpt_path", "last")
    assert command.wait(200) == 0, (lab.folder / "ray.log").read_text()
    expect_equal_runs(lab, "run", "alone")


def test_a_killed_process_ends_the_run_and_a_killed_command_leaves_nobody(cluster: Cluster, lab: Lab) -> None:
    options = ("--config", str(lab.run_file), *OFFLINE, "--save_every", "1", "--trainer.max_epochs", "500")
    command = cluster.fit(lab, *options)
    os.kill(begun(lab, command), signal.SIGKILL)
    assert command.wait(100) == 137, (lab.folder / "ray.log").read_text()
    (kept,) = (lab.folder / "run").glob("checkpoints/step=*.ckpt")

    command = cluster.fit(lab, "--ckpt_path", "last")
    wait_for(lambda: not kept.exists(), command, lab.folder / "ray.log")  # it has saved a later one
    pid = begun(lab, command)
    command.kill()
    command.wait()
    end = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_machines_are_waited_for_and_a_run_on_both_is_the_same(cluster: Cluster, lab: Lab) -> None:
    """Both are this one: to Ray each `ray start` is a machine."""
    options = ("--config", str(lab.run_file), *OFFLINE)
    fit_on_ranks(["fit", *options, "--run_dir", "alone"], lab.folder)
    both = ("--trainer.num_nodes", "2", "--trainer.devices", "1", *DDP, "--run_dir", "run")
    command = cluster.nashtune("fit", *options, *both, folder=lab.folder)
    log = lab.folder / "ray.log"
    wait_for(lambda: b"waiting for 2 machines with 1 CPU each; Ray has now: 2 CPUs" in log.read_bytes(), command, log)
    cluster.start(f"--address={cluster.environ['RAY_ADDRESS']}", "--num-cpus=1")
    assert command.wait(200) == 0, log.read_text()
    expect_equal_runs(lab, "run", "alone")
    assert json.loads((lab.folder / "run" / "environment.json").read_bytes())["machine"]["nodes"] == 2

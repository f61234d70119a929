"""Two hosts on one machine: network namespaces joined by a cable that can be pulled, and a launcher in each.

They share a file system, as machines with a shared folder do, and nothing else: ports and routes are their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab import Lab

TORCHRUN = Path(sys.executable).with_name("torchrun")
NASHTUNE = Path(sys.executable).with_name("nashtune")
PORT = 29511  # of the first host, which has all ports to itself
JOB = "4711"  # SLURM's number


def why_not() -> str:
    """Why there can be no two hosts here; empty where there can."""
    if shutil.which("ip") is None:
        return "two hosts need the command `ip` (iproute2)"
    name = f"nt{os.getpid()}x"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"two hosts need network namespaces, which only root may make: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def strategy(name: str, seconds: int = 120) -> list[str]:
    """Options that name a strategy over gloo, and when its processes give up waiting."""
    options = {"process_group_backend": "gloo", "timeout": f"{timedelta(seconds=seconds)}"}
    return ["--trainer.strategy", name, *(f"--trainer.strategy.{key}={value}" for key, value in options.items())]


@dataclass
class Host:
    """One namespace, and the newest command that was started in it."""

    name: str
    device: str
    address: str
    command: subprocess.Popen[str] | None = None

    def pids(self) -> list[int]:
        """Of everything that runs in the namespace: nobody but a test starts anything there."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]


class Hosts:
    """Both ends of the cable; see `two_hosts`."""

    def __init__(self) -> None:
        mark = f"nt{os.getpid()}"
        self.ends = [Host(f"{mark}h{i}", f"{mark}e{i}", f"10.91.7.{i + 1}") for i in (0, 1)]

    def plug(self) -> None:
        """Make the namespaces and the cable."""
        first, second = self.ends
        for host in self.ends:
            _ip("netns", "add", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
        cable = ["link", "add", first.device, "netns", first.name, "type", "veth"]
        _ip(*cable, "peer", "name", second.device, "netns", second.name)
        for host in self.ends:
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.device)
            _ip("-n", host.name, "link", "set", host.device, "up")

    def cut(self) -> None:
        """Pull the cable: packets vanish, and no connection is told."""
        _ip("-n", self.ends[1].name, "link", "set", self.ends[1].device, "down")

    def heal(self) -> None:
        """Plug it in again."""
        _ip("-n", self.ends[1].name, "link", "set", self.ends[1].device, "up")

    def unplug(self) -> None:
        """End what runs in the namespaces, and remove them; the cable goes with them."""
        for host in self.ends:
            for pid in host.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if host.command is not None:
                host.command.wait()
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)

    def start(self, arguments: Sequence[str], folder: Path, *, slurm: bool = False) -> None:
        """Start `nashtune ARGUMENTS` as docs/many-gpus.md has it; each host writes `host-N.log`.

        Args:
            arguments: Of the command line.
            folder: Working directory, the same on both hosts; commands in `folder/bin` come before the system's.
            slurm: As `srun` starts a process, by SLURM's environment alone; else by torchrun.
        """
        for number, host in enumerate(self.ends):
            own = {
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": host.device,
                "PATH": f"{folder}/bin:{os.environ['PATH']}",
            }
            launch, told = self._srun(number) if slurm else (self._torchrun(number), {})
            with (folder / f"host-{number}.log").open("w") as log:
                host.command = subprocess.Popen(
                    ["ip", "netns", "exec", host.name, *launch, *arguments],
                    cwd=folder,
                    env={**os.environ, **own, **told},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    text=True,
                )

    def _torchrun(self, number: int) -> list[str]:
        launch = [str(TORCHRUN), "--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}"]
        return [*launch, f"--master-addr={self.ends[0].address}", f"--master-port={PORT}", "--no-python", str(NASHTUNE)]

    def _srun(self, number: int) -> tuple[list[str], dict[str, str]]:
        said = {
            **{"JOB_ID": JOB, "JOB_NAME": "dpo-a", "NNODES": "2", "NTASKS": "2", "NTASKS_PER_NODE": "1"},
            **{"PROCID": f"{number}", "NODEID": f"{number}", "LOCALID": "0"},
            "NODELIST": ",".join(host.address for host in self.ends),
        }
        return [str(NASHTUNE)], {f"SLURM_{name}": value for name, value in said.items()}

    def fit(self, lab: Lab, *options: str, by: str, seconds: int = 120, slurm: bool = False) -> Path:
        """Start `nashtune fit` of the laboratory's run file as one run on both hosts.

        Args:
            lab: Where it runs, and its run file.
            options: Further ones.
            by: Class of Lightning's strategy.
            seconds: Until a process that waits for another gives up.
            slurm: See `start`.

        Returns:
            The run folder.
        """
        run = lab.folder / "run"
        own = ["--config", str(lab.run_file), "--run_dir", str(run)]
        both = ["--trainer.num_nodes", "2", "--trainer.devices", "1", *strategy(by, seconds)]
        self.start(["fit", *own, *both, *options], lab.folder, slurm=slurm)
        return run

    def tell(self, number: int) -> None:
        """Send a signal to the command on each host."""
        for host in self.ends:
            assert host.command is not None
            host.command.send_signal(number)

    def wait(self, seconds: float) -> list[int | None]:
        """Exit code of each host's command; None for one that is still running after so many seconds."""
        end = time.monotonic() + seconds
        codes: list[int | None] = []
        for host in self.ends:
            assert host.command is not None
            with suppress(subprocess.TimeoutExpired):
                host.command.wait(max(end - time.monotonic(), 0.01))
            codes.append(host.command.returncode)
        return codes

    def log(self, folder: Path) -> str:
        """What both hosts wrote."""
        return "\n".join(log.read_text() for log in sorted(folder.glob("host-*.log")))


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Two hosts for as long as the block runs."""
    hosts = Hosts()
    try:
        hosts.plug()
        yield hosts
    finally:
        hosts.unplug()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

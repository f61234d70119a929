"""What a run was made with: versions, machine and command, kept in its folder for whoever wants to know later.

RUN_DIR/environment.json      of the first attempt
RUN_DIR/environment.N.json    of the N-th time that it went on
"""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from nashtune import __version__
from nashtune.cpu import CPUINFO
from nashtune.files import write_bytes_atomically
from nashtune.launcher import launcher
from nashtune.plugins import load_plugins
from nashtune.spec.secrets import find_secrets

PACKAGES = (
    *("torch", "lightning", "transformers", "peft", "safetensors", "tokenizers", "numpy", "pyarrow", "jsonargparse"),
    *("vllm", "bitsandbytes", "flash-attn", "triton", "deepspeed"),
)
"""Whose versions numbers may depend on; those that are installed are kept, and the distributions of plugins."""
HIDDEN = "***"


def write_environment(folder: Path, attempt: int, trainer: Trainer, command: Sequence[str]) -> None:
    """Write this attempt's file; for rank 0.

    Args:
        folder: The run folder.
        attempt: 0 for a new run, n for its n-th resume.
        trainer: Made; its processes need not have met.
        command: The command line.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "nashtune": __version__,
        "attempt": attempt,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_secrets(command),
        "versions": versions(),
        "machine": machine(trainer),
    }
    name = f"environment.{attempt}.json" if attempt else "environment.json"
    write_bytes_atomically(folder / name, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def versions() -> dict[str, str]:
    """Of python, of what numbers depend on, and of the plugins that are installed."""
    found = {"python": platform.python_version()}
    plugins = [record.dist for record in load_plugins().records if record.dist]
    for package in dict.fromkeys((*PACKAGES, *plugins)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # not installed, or a plugin without a distribution
            continue
    found["torch"] = torch.__version__  # with the name of its build, `2.13.0+cpu`
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def machine(trainer: Trainer) -> dict[str, Any]:
    """Of rank 0, and how many processes there are.

    Args:
        trainer: Made.
    """
    cuda = trainer.strategy.root_device.type == "cuda"
    started = launcher()
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
        "launcher": started.name if started is not None else "nashtune",
        "nodes": trainer.num_nodes,
        "ranks": trainer.world_size,
    }


def processor() -> str:
    """Its name, or what it is an instance of where the system does not say it."""
    text = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def without_secrets(command: Sequence[str]) -> list[str]:
    """A command line to keep: what looks like a key, or follows an option that takes one, is hidden.

    Args:
        command: Its words.
    """
    kept: list[str] = []
    option = ""
    for word in command:
        named = word.startswith("--")
        name, equals, value = word.partition("=") if named else (option, "", word)
        key = name.rpartition(".")[2].lstrip("-")
        secret = (not named or bool(equals)) and any(find_secrets({key: value} if key else value))
        kept.append(f"{name}={HIDDEN}" if secret and named else HIDDEN if secret else word)
        option = word if named and not equals else ""
    return kept

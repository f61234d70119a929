"""The random generators of python, numpy and torch: kept in a checkpoint, set again, and each rank's own."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from nashtune.errors import InputError


def random_state(device: torch.device) -> dict[str, Any]:
    """The generators of python, numpy and torch, as data that loads with `weights_only=True`.

    Args:
        device: Of this rank. The others of its machine are other ranks', and a resume may see more or fewer of them.
    """
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Inverse of `random_state`; the device may be another one, and on a CPU its generator is left out."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"][0], device)


def restore(state: Mapping[str, Any], device: torch.device) -> None:
    """As `set_random_state`, of a checkpoint.

    Raises:
        InputError: it was altered.
    """
    try:
        set_random_state(state, device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, OverflowError) as error:
        raise InputError(
            f"--ckpt_path: the checkpoint's random generators cannot be set ({error!r}): it was altered, restore it "
            "from a copy"
        ) from error


def own_stream(rank: int, device: torch.device) -> None:
    """Another noise for torch on each rank > 0. The seed that `torch.initial_seed()` tells remains that of all."""
    mixed = np.random.SeedSequence([torch.initial_seed(), rank]).generate_state(1, np.uint64)
    state = torch.Generator().manual_seed(int(mixed[0])).get_state()
    state[:8] = torch.get_rng_state()[:8]  # where a state keeps its seed: stochastic rounding reads it, alike on all
    torch.set_rng_state(state)
    if device.type == "cuda":
        seed_and_offset = torch.cuda.get_rng_state(device)
        seed_and_offset.view(torch.int64)[1] = rank << 40  # a stretch of the seed's noise that no other rank reaches
        torch.cuda.set_rng_state(seed_and_offset, device)

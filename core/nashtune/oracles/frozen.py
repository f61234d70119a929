"""What oracles that are models share: where they run."""

from __future__ import annotations

from typing import Literal

import torch

from nashtune.errors import InputError

Device = Literal["auto", "cpu", "cuda"]


def pick_device(device: Device) -> torch.device:
    """The device of that name; "auto" is this process's GPU where there is one, else the CPU.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise InputError("oracle.device: cuda, but torch sees no GPU here; use cpu or auto")
    if device == "cpu" or not there:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())

"""What the rounds of a run belong to: prompts, seed, precision, batches. Other ones do not go on with its journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.ranks import rank, together

OPTIONS = {
    "fingerprint": "data.train: other prompts (other rows, tokenizer, template or length limits)",
    "seed": "seed_everything: {saved} there, {now} here",
    "prompts_per_round": "data.prompts_per_round: {saved} there, {now} here",
    "labels": "data.labels: {saved} there, {now} here",
    "step_rows": "data.batch_size times trainer.accumulate_grad_batches times devices: {saved} rows of an optimiser "
    "step there, {now} here",
    "batch_size": "data.batch_size (this method compares the rows of a micro-batch): {saved} there, {now} here",
    "batch_tokens": "data.batch_tokens: {saved} there, {now} here",
    "epochs": "trainer.max_epochs (passes over the rows of each update): {saved} there, {now} here",
    "precision": "trainer.precision: {saved} there, {now} here",
    "engine": "engine: {saved} there, {now} here",
    "gradient_clip_val": "trainer.gradient_clip_val: {saved} there, {now} here",
    "gradient_clip_algorithm": "trainer.gradient_clip_algorithm: {saved} there, {now} here",
}

ALWAYS = {"fingerprint", "seed", "prompts_per_round", "labels", "epochs"}
"""What every run has written down, also an old one."""


def claim_rounds(folder: Path, now: Mapping[str, Any], *, new: bool) -> None:
    """Write down what the journal in a folder belongs to, or see that it is the same; rank 0 does, for all.

    Args:
        folder: The journal's.
        now: What this run is.
        new: Whether no checkpoint was restored, so that there may be no journal yet.

    Raises:
        InputError: the run was begun with something else, or its journal is gone.
    """
    with together("journal"):
        if rank() == 0:
            _claim(folder / "identity.json", now, new=new)


def _claim(file: Path, now: Mapping[str, Any], *, new: bool) -> None:
    if not file.exists():
        if not new:
            raise InputError(
                f"{file.parent}: the run's journal is gone, and a game cannot go on without it; restore it from a "
                "copy, or start a new run without --ckpt_path"
            )
        write_bytes_atomically(file, (json.dumps(dict(now), indent=2) + "\n").encode())
        return
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or not saved.keys() >= ALWAYS & now.keys():
            raise ValueError(file)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is torn or was altered; restore it from a copy, or start a new run with another --run_dir"
        ) from error
    refuse_other(saved, now)


def refuse_other(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with rounds that were played with something else.

    Raises:
        InputError: naming each option that differs.
    """
    different = [
        text.format(saved=saved.get(name), now=now[name])
        for name, text in OPTIONS.items()
        if name in now and saved.get(name, now[name]) != now[name]
    ]
    if different:
        raise InputError(
            f"this run was begun with something else: {'; '.join(different)}. Give what it was begun with, or start a "
            "new run without --ckpt_path"
        )

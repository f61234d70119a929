"""The rows of a training as tokens, before anything is trained: what is too long is found now, and kept for later."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

from nashtune.comparison.budget import steps_of_tokens
from nashtune.comparison.held_out import words
from nashtune.data.messages import as_asked
from nashtune.data.module import PreferenceData
from nashtune.data.prompts import read_prompts
from nashtune.errors import InputError
from nashtune.models.locate import locate
from nashtune.models.preflight import load_tokenizer
from nashtune.models.sizes import context_length
from nashtune.pipeline.settings import sections
from nashtune.spec.gamerules import attribute, is_game
from nashtune.spec.model import Spec
from nashtune.spec.run import Runs

UNITS = {"examples": "completions", "ranked": "ranked lists"}
"""Kinds of rows, where a reader knows them by another name."""


@dataclass(frozen=True, kw_only=True)
class RowsRead:
    """What a spec reads of data.train.

    Args:
        unit: "pairs", "completions", "ranked lists" or "prompts".
        rows: Lines of the file.
        read: Pairs, or so, that these give.
        used: Those that are trained on.
        left_out: How many are not, by reason.
        distinct_prompts: Different prompts of those that are used.
        fingerprint: sha256 of their token ids and labels.
    """

    unit: str
    rows: int
    read: int
    used: int
    left_out: Mapping[str, int]
    distinct_prompts: int
    fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """For `comparison.json`."""
        return asdict(self)


def rows_read(data: PreferenceData, prompts: Mapping[str, Hashable]) -> RowsRead:
    """Of training rows.

    Args:
        data: From `tokenised`.
        prompts: The prompt of each row of the file, by `file:line`.
    """
    report = data.reports["train"]
    left_out = {
        "longer than data.max_length": report.dropped_overflow,
        "a completion longer than that": report.dropped_completion,
    }
    return RowsRead(
        unit=UNITS.get(report.kind, report.kind),
        rows=report.read,
        read=report.used + sum(left_out.values()),
        used=report.used,
        left_out={reason: count for reason, count in left_out.items() if count},
        distinct_prompts=len({prompts[data.where("train", row)] for row in range(report.used)}),
        fingerprint=report.fingerprint,
    )


def rows_notes(read: Mapping[str, RowsRead]) -> list[str]:
    """Who reads how much of the training rows, in a sentence; none where everybody reads all of them.

    Args:
        read: By spec.
    """
    if all(rows.used == rows.read for rows in read.values()):
        return []
    alike: dict[str, list[str]] = {}
    for name, rows in read.items():
        told = f"{rows.used} of {rows.read} {rows.unit} ({rows.distinct_prompts} different prompts)"
        alike.setdefault(told, []).append(name)
    each = ", ".join(f"{' and '.join(names)} {told}" for told, names in alike.items())
    same = "all specs train on the same part of data.train" if len(alike) == 1 else "the specs train on different rows"
    return [
        f"{same}: {each}; the rest is longer than data.max_length, which in a game counts the prompt and what is drawn"
    ]


def prompts_of(runs: Runs) -> dict[str, Hashable]:
    """The prompt of each training row by `file:line`; none where the rows are wrong, which every spec finds."""
    data = sections(runs)["data"]
    with suppress(InputError):
        if data.get("train") is not None:
            return {
                where: words(as_asked(prompt)) for prompt, where in read_prompts(data["train"], data.get("limit")).rows
            }
    return {}


def tokenised(spec: Spec, config: Mapping[str, Any]) -> PreferenceData:
    """Training and held-out rows as `nashtune fit` reads them.

    Args:
        spec: Whose loss says which rows they are.
        config: Sections of its run file.

    Raises:
        InputError: rows are too long, or cannot be read.
    """
    data, path, game = PreferenceData(**config["data"]), config["policy"]["path"], is_game(spec)
    room = (spec.sampler.args.get("max_new_tokens") or 0) if spec.sampler is not None and game else 0
    data.bind(
        tokenizer=load_tokenizer(path),
        rows="prompts" if game else cast(Any, attribute(spec.loss, "rows", "pairs")),
        uses_p_chosen=attribute(spec.loss, "uses_p_chosen", False),
        uses_margin=attribute(spec.loss, "uses_margin", False),
        seed=0,
        context=context_length(locate(path)),
        completion_room=room,
    )
    data.setup("fit")
    return data


def steps_for(spec: Spec, config: Mapping[str, Any], data: PreferenceData, tokens: int) -> int:
    """Optimiser steps of an offline method in which it trains on so many tokens.

    Args:
        spec: An offline method.
        config: Sections of its run file.
        data: From `tokenised`.
        tokens: Of the sequences that carry a gradient.
    """
    trainer, report = config["trainer"], data.reports["train"]
    assert report.prompt_tokens is not None and report.completion_tokens is not None, "rows of policies have prompts"
    once = report.prompt_tokens.total + report.completion_tokens.total
    # a pair's prompt stands before both answers
    per_epoch = once + report.prompt_tokens.total if attribute(spec.loss, "rows", "pairs") == "pairs" else once
    devices = trainer.get("devices")
    ranks = trainer.get("num_nodes", 1) * (devices if isinstance(devices, int) and devices > 0 else 1)
    return steps_of_tokens(tokens, per_epoch, data.steps_per_epoch(trainer.get("accumulate_grad_batches", 1), ranks))

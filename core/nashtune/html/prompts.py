"""Texts of prompts: of a journal's rounds from their token ids, of held-out prompts as they stand beside answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from nashtune.errors import InputError
from nashtune.html.run_files import Run
from nashtune.journal.store import Journal
from nashtune.models.locate import EXPORT
from nashtune.models.preflight import load_tokenizer
from nashtune.samplers.recorded_journal import PROMPTS, read_prompts

HELD_OUT = {"prompt": pa.int32(), "token_ids": pa.list_(pa.int32()), "text": pa.string()}
"""Columns of the prompts that a game's policies have answered at its end."""


class Prompts:
    """Prompts of a run as texts; where one cannot be had, its number, and one note that says why.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tokenizer: Any = None
        self.notes: list[str] = []

    def of_round(self, journal: Journal, round: int) -> dict[int, str]:
        """Of a round, by their numbers in the whole prompt set: as the model has read them, template and all."""
        if not journal.has(round, PROMPTS):
            self._note("this run's journal keeps no prompts, so that they stand here as numbers")
            return {}
        tokenizer = self.tokenizer()
        if tokenizer is None:
            return {}
        columns = read_prompts(journal, round)
        texts = tokenizer.batch_decode(columns["token_ids"], skip_special_tokens=False)
        return dict(zip(columns["prompt"], texts, strict=True))

    def tokenizer(self) -> Any:
        """Of the exported model, or of that which the run began with; None, and a note, where there is none."""
        if self._tokenizer is not None:
            return self._tokenizer
        export, path = self._run.folder / EXPORT, (self._run.config.get("policy") or {}).get("path")
        reasons = []
        for place in (*([str(export)] if export.is_dir() else []), *([path] if path else [])):
            try:
                self._tokenizer = load_tokenizer(place)
                return self._tokenizer
            except InputError as error:
                reasons.append(str(error))
        self._note(f"prompts stand here as numbers, as no tokenizer reads them: {'; '.join(reasons)}")
        return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def held_out(answers: Journal, number: int) -> list[str]:
    """Of a game, in order, as they are kept beside a policy's answers; none where they are not.

    Args:
        answers: Those of the policies.
        number: Of the policy.
    """
    if not answers.has(number, PROMPTS):
        return []
    return [str(text) for text in answers.read_table(number, PROMPTS, HELD_OUT)["text"]]


def shared_ends(texts: Sequence[str]) -> tuple[str, str]:
    """What all prompts begin and end with: a template's system prompt and turns, which need to be shown but once.

    Cut where a line or a special token ends, so that words that prompts happen to share stay with them.
    """
    if len(texts) < 2:
        return "", ""
    begin = _common(texts)
    begin = begin[: max(begin.rfind("\n"), begin.rfind(">")) + 1]
    rest = [text[len(begin) :] for text in texts]
    end = _common([text[::-1] for text in rest])[::-1]
    starts = [at for at in (end.find("\n"), end.find("<")) if at >= 0]
    return begin, end[min(starts) :] if starts else ""


def _common(texts: Sequence[str]) -> str:
    """What all texts begin with: what the first and the last in order do."""
    first, last = min(texts), max(texts)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]

"""The prompts that all policies answer: held out, and so none that a policy was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nashtune.comparison.request import Request
from nashtune.data.messages import as_asked
from nashtune.data.module import PreferenceData
from nashtune.data.prompts import PromptRow, read_prompts
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt
from nashtune.models.locate import locate
from nashtune.models.sizes import context_length
from nashtune.pipeline.settings import sections
from nashtune.training.samples import SampleSettings


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is answered.

    Args:
        rows: The prompts.
        different: Different prompts of data.validation.
        also_trained_on: How many of these are prompts of data.train, too; they are left out.
    """

    rows: list[PromptRow]
    different: int
    also_trained_on: int = 0

    @property
    def notes(self) -> list[str]:
        """What a user should know of them, in sentences."""
        if not self.also_trained_on:
            return []
        return [
            f"{self.also_trained_on} of {self.different} held-out prompts are also trained on (data.train has them), "
            "and are left out"
        ]


def held_out(request: Request, *, tokenizer: Any) -> HeldOut:
    """The first different prompts of data.validation that are not in data.train.

    The model's context limits them, not `data.max_length`, which is about training. A prompt of data.train counts as
    trained on whether or not every spec reads its row.

    Args:
        request: The comparison.
        tokenizer: Of the starting policy.

    Raises:
        InputError: anything is wrong with the rows, all of them are trained on, or there are fewer than asked for.
    """
    run = sections(request.runs)
    given, path = run["data"], run["policy"]["path"]
    context = context_length(locate(path))
    room = SampleSettings(**run["samples"]).max_new_tokens
    shared = {name: given[name] for name in ("template", "limit", "overflow") if name in given}
    rows = PreferenceData(validation=given["validation"], max_length=context or given.get("max_length", 1024), **shared)
    rows.bind(tokenizer=tokenizer, rows="prompts", uses_p_chosen=False, seed=0, context=context, completion_room=room)
    rows.setup("validate")
    different: dict[tuple[int, ...], PromptRow] = {}
    for row in rows.prompts("validation"):
        different.setdefault(row.prompt_ids, row)
    return _untrained(list(different.values()), given["train"], given.get("limit"), request.prompts)


def _untrained(rows: list[PromptRow], train: str, limit: int | None, wanted: int | None) -> HeldOut:
    trained = {words(as_asked(prompt)) for prompt, _ in read_prompts(train, limit).rows}
    fresh = [row for row in rows if words(row.prompt) not in trained]
    also = len(rows) - len(fresh)
    if not fresh:
        raise InputError(
            f"data.validation: all of its {len(rows)} different prompts are prompts of data.train, too: no policy "
            "would be asked anything that it was not trained on; give other rows: --data.validation FILE"
        )
    if wanted is not None and wanted > len(fresh):
        but = f", and {also} of them are prompts of data.train, too" if also else ""
        raise InputError(f"--prompts {wanted}: data.validation has {len(rows)} different prompts{but}")
    return HeldOut(rows=fresh[:wanted], different=len(rows), also_trained_on=also)


def words(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """A prompt as what is said in it: a text alone is a message of the user; space at its ends is nothing."""
    if isinstance(prompt, str):
        return (("user", prompt.strip()),)
    return tuple((message["role"], message["content"].strip()) for message in prompt)

"""Answers of a run: of a game's policies, or before and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nashtune.html.answers import MOST_ENTRIES, Answers, Entry, Said
from nashtune.html.prompts import held_out
from nashtune.html.room import evenly
from nashtune.html.run_files import Run
from nashtune.journal.records import read_completions
from nashtune.journal.store import Journal

KEY = "answers-key"


def answers_of_run(run: Run) -> Answers | None:
    """Of a game its policies' answers at its end, of other runs the answers before and after; None without any.

    Raises:
        InputError: a file of the answers is torn or was altered.
    """
    journal = Journal(run.folder / "answers")
    numbers = [number for number in journal.rounds() if journal.has(number, KEY)]
    asked = _asked(run.report or {})
    if numbers:
        found = _of_rounds(journal, numbers)
        return replace(found, notes=[*asked, *found.notes])
    if not run.samples:
        return None
    policies = [name for name in ("before", "after") if any(name in one for one in run.samples)]
    entries = [_before_and_after(one, policies) for one in run.samples]
    return Answers(policies, entries, notes=asked) if policies else None


def _asked(report: Mapping[str, Any]) -> list[str]:
    """How many prompts were asked for, and how many answered, in a sentence; none where the report does not say."""
    found = report.get("held_out_prompts")
    if not found:
        return []
    return [f"{found['answered']} held-out prompts were answered, of {found['asked']} that samples.prompts asks for."]


def _before_and_after(one: Mapping[str, str], policies: Sequence[str]) -> Entry:
    return Entry(one.get("prompt", ""), [Said(one[name]) if name in one else None for name in policies])


def _of_rounds(journal: Journal, numbers: Sequence[int]) -> Answers:
    texts_asked = held_out(journal, numbers[0])
    policies: list[str] = []
    said: list[dict[int, Said]] = []
    for number in numbers:
        policies.append(str(journal.read_table(number, KEY)["policy"][0]))
        completions, texts = read_completions(journal, number, "policy", 0)
        said.append(
            {
                one.prompt: Said(text, len(one.token_ids), "cut at the token limit" if one.finish == "length" else "")
                for one, text in zip(completions, texts, strict=True)
            }
        )
    asked = sorted({place for one in said for place in one})
    (shown,) = evenly([asked], lambda place: [one[place].text for one in said if place in one], most=MOST_ENTRIES)
    entries = [
        Entry(
            texts_asked[place] if place < len(texts_asked) else f"held-out prompt {place}",
            [one.get(place) for one in said],
        )
        for place in shown
    ]
    notes = []
    if not texts_asked:
        notes.append("Held-out prompts stand here as numbers: this run has kept none beside its answers.")
    if len(shown) < len(asked):
        notes.append(f"{len(shown)} of {len(asked)} prompts are on this page, evenly over all; answers/ has all.")
    return Answers(policies, entries, notes=notes)

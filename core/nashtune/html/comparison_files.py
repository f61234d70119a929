"""What a comparison's folder holds, read as plain data; the files are those of `nashtune.comparison.folder`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nashtune.comparison.costs import Cost
from nashtune.comparison.folder import ANSWERS, JUDGEMENTS, RESULT, SAVED
from nashtune.comparison.ratings import Ratings
from nashtune.comparison.tabulated import ANSWER_TYPES, VERDICT_TYPES
from nashtune.errors import InputError
from nashtune.html.answers import EQUAL, MOST_ENTRIES, VERDICT_BYTES, Answers, Entry, Said, Verdicts
from nashtune.html.room import evenly, written
from nashtune.html.run_files import read_json, read_yaml
from nashtune.html.words import number


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A comparison that has ended.

    Args:
        folder: Its folder.
        request: What was asked for: specs, run, seeds, budget, judge, versions.
        result: comparison.json.
        ratings: Of the policies.
        costs: Of every training.
        on_judge: Specs whose training asked the judge of the comparison.
        answers: Rows of answers.parquet.
        verdicts: Rows of judgements.parquet.
    """

    folder: Path
    request: Mapping[str, Any]
    result: Mapping[str, Any]
    ratings: Ratings
    costs: Sequence[Cost]
    on_judge: Sequence[str]
    answers: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Mapping[str, Any]]

    @property
    def seeds(self) -> Sequence[int]:
        """Those of the policies that were rated; all, in files from before some could be missing."""
        seeds: Sequence[int] = self.result.get("seeds", self.request["seeds"])
        return seeds


def read_comparison(folder: Path) -> Compared:
    """Read a comparison's folder.

    Raises:
        InputError: it has not ended, or a file in it is missing, torn or not what was written.
    """
    if not (folder / SAVED).exists():
        raise InputError(f"{folder}: no {SAVED}, hence no comparison; give a folder that `nashtune compare` wrote")
    path = folder / RESULT
    if not path.exists():
        raise InputError(
            f"{folder}: this comparison has not ended, there is no {RESULT}; go on with: nashtune compare --run_dir "
            f"{folder}, or have what there is rated: nashtune compare --run_dir {folder} --so_far"
        )
    result = read_json(path, dict)
    try:
        ratings = Ratings.from_dict(result["ratings"])
        costs = [Cost(**one) for one in result["costs"]]
        on_judge = [name for name in result["specs"] if name in result["trained_on_judge"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not what this version writes ({error!r}); write it again with: nashtune compare --run_dir "
            f"{folder}"
        ) from error
    return Compared(
        folder=folder,
        request=read_yaml(folder / SAVED),
        result=result,
        ratings=ratings,
        costs=costs,
        on_judge=on_judge,
        answers=_rows(folder / ANSWERS, ANSWER_TYPES),
        verdicts=_rows(folder / JUDGEMENTS, VERDICT_TYPES),
    )


def answers_of_comparison(found: Compared) -> Answers:
    """All policies' answers to each prompt under each seed, with the judgements of each two of them."""
    answers, policies = found.answers, found.ratings.policies
    pairs = list(combinations(policies, 2))
    said = {(one["seed"], one["prompt"], one["policy"]): one for one in answers}
    judged = {
        (one["seed"], one["prompt"], one["first"], one["second"], one["order"]): one["p"] for one in found.verdicts
    }
    places = sorted({(seed, prompt) for seed, prompt, _ in said})
    prompts = sorted({prompt for _, prompt in places})
    seeds = len({seed for seed, _ in places})
    own_texts: dict[int, list[str]] = {}
    details = Counter[int]()
    for one in answers:
        own_texts.setdefault(one["prompt"], [one["prompt_text"]]).append(one["text"])
        details[one["prompt"]] += written(_details(one))
    ((*shown,),) = evenly(
        [prompts],
        own_texts.__getitem__,
        most=max(1, MOST_ENTRIES // seeds),
        beside=lambda prompt: VERDICT_BYTES * len(pairs) * seeds + details[prompt],
    )
    kept = set(shown)
    entries = []
    for seed, prompt in places:
        if prompt not in kept:
            continue
        own = [said.get((seed, prompt, policy)) for policy in policies]
        text = next(one["prompt_text"] for one in own if one is not None)
        verdicts = [_verdicts(judged, (seed, prompt, first, second)) for first, second in pairs]
        entries.append(Entry(text, [None if one is None else _said(one) for one in own], seed, verdicts))
    notes = []
    if len(kept) < len(prompts):
        notes.append(f"{len(kept)} of {len(prompts)} prompts are on this page, evenly over all; {ANSWERS} has all.")
    return Answers(policies, entries, notes)


def _verdicts(judged: Mapping[Any, float | None], place: tuple[int, int, str, str]) -> Verdicts:
    if (*place, "equal") in judged:
        return EQUAL
    return judged.get((*place, "given")), judged.get((*place, "swapped"))


def _said(one: Mapping[str, Any]) -> Said:
    return Said(one["text"], one["tokens"], _details(one))


def _details(one: Mapping[str, Any]) -> str:
    details = []
    if one["reward"] is not None:
        details.append(f"reward {number(one['reward'], sign=True)}")
    if one["logp"] is not None and one["logp_start"] is not None:
        details.append(f"log π/π_start {number(one['logp'] - one['logp_start'], sign=True)}")
    if one["kl"] is not None:
        details.append(f"KL {number(one['kl'])}")
    if not one["finished"]:
        details.append("cut at the token limit")
    return " · ".join(details)


def _rows(path: Path, types: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is missing or torn ({str(error).splitlines()[0]}); restore it from a copy") from error
    found = dict(zip(table.schema.names, table.schema.types, strict=True))
    if found != dict(types):
        raise InputError(f"{path} has other columns than this version writes: {', '.join(found)}; restore it")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows

"""What is known, and said, of a comparison before its first training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from nashtune.comparison.held_out import HeldOut, held_out
from nashtune.comparison.judge_choice import trained_on
from nashtune.comparison.plan import Entry
from nashtune.comparison.request import Request
from nashtune.comparison.rows_ahead import rows_notes
from nashtune.models.preflight import load_tokenizer
from nashtune.pipeline.settings import sections
from nashtune.spec.resolve import build
from nashtune.training.samples import SampleSettings

if TYPE_CHECKING:
    from nashtune.interfaces import PreferenceOracle, RewardOracle


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What can be known before the first training.

    Args:
        judge: Prepared: its files, packages and endpoints were looked at.
        prompts: Held-out prompts.
    """

    judge: RewardOracle | PreferenceOracle
    prompts: HeldOut


def make_ready(request: Request) -> Ready:
    """Look at the judge and the held-out prompts, which are needed last.

    Raises:
        InputError: the judge cannot work, or anything is wrong with the prompts.
    """
    judge = cast("RewardOracle | PreferenceOracle", build(request.judge))
    judge.prepare()
    tokenizer = load_tokenizer(sections(request.runs)["policy"]["path"])
    return Ready(judge=judge, prompts=held_out(request, tokenizer=tokenizer))


def first_notes(request: Request, entries: Sequence[Entry], ready: Ready) -> list[str]:
    """What makes a comparison less than it seems, in sentences; it is known before the first training."""
    rows = rows_notes({entry.name: entry.rows for entry in entries})
    temperature = SampleSettings(**sections(request.runs)["samples"]).temperature
    return [*ready.prompts.notes, *rows, *judge_notes(request), *tempered(temperature)]


def tempered(temperature: float) -> list[str]:
    """What answers at another temperature than 1 do not tell, in a sentence."""
    if temperature == 1.0:
        return []
    return [
        f"the KL divergence from the start is not measured: answers drawn at temperature {temperature:g} are not the "
        "policies' own, and log-probs are those of temperature 1 (--samples.temperature 1.0)"
    ]


def judge_notes(request: Request) -> list[str]:
    """Who was trained on the judge, where not all were, in a sentence."""
    names = [spec.name for spec in request.specs]
    on_judge = trained_on(request.judge, request.specs)
    if not on_judge:
        return []
    others = [name for name in names if name not in on_judge]
    was = "was" if len(on_judge) == 1 else "were"
    rest = f", {', '.join(others)} {'was' if len(others) == 1 else 'were'} not" if others else ""
    return [
        f"{', '.join(on_judge)} {was} trained on this judge ({request.judge.name}){rest}: another one may see another "
        "order in the same answers (nashtune compare --run_dir FOLDER --judge NAME)"
    ]

"""What a comparison was: its data, its settings, where it was made, in words and tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nashtune.comparison.costs import Cost, by_policy
from nashtune.comparison.folder import RUN_PAGE, home_of, run_folder
from nashtune.html.comparison_files import Compared
from nashtune.html.drawing import Values
from nashtune.html.words import NOTHING, duration, fixed, listed, number

SHORT = 60
"""Letters of a judge's option that stand in a sentence; a longer one is among the settings."""
Data = Mapping[str, Any]


def lead(found: Compared) -> str:
    """What was compared, in a few sentences."""
    seeds, ratings, budget = found.ratings.seeds, found.ratings, found.result["budget"]
    specs = found.result["specs"]
    each = f"{seeds} seeds each" if seeds > 1 else "one seed each"
    allowed = (
        f"for up to {number(budget['amount'])} {budget['kind']}" if budget["amount"] else "as long as the run says"
    )
    model = (found.result.get("made") or {}).get("model")
    adapter = (found.result.get("made") or {}).get("adapter")
    start = f", from {model}{f' with {adapter}' if adapter else ''}" if model else ""
    said = (
        f"{len(specs)} spec{'' if len(specs) == 1 else 's'} trained on the same {_same(found)} {allowed}, {each}{start}"
        f", and judged by {judge(found.result['judge'])} on {ratings.prompts} held-out prompts, together with the "
        "policy that they started from."
    )
    if found.on_judge:
        others = [name for name in specs if name not in found.on_judge]
        rest = f", {listed(others)} {'was' if len(others) == 1 else 'were'} not" if others else ""
        verb = "was" if len(found.on_judge) == 1 else "were"
        said += f" {listed(found.on_judge)} {verb} trained on this very judge{rest}."
    return said


def _same(found: Compared) -> str:
    """What is known to be the same for all: rows, or no more than the files that they are in."""
    specs = (found.result.get("data") or {}).get("specs") or {}
    kinds = {one.get("fingerprint", name) for name, one in specs.items()}
    return "rows" if len(kinds) == 1 else "files, which they do not read alike," if kinds else "files"


def judge(settings: Data) -> str:
    """A judge by its name, with what it is made of or where it is from: "raters (sentiment and brevity)"."""
    name, told = str(settings["name"]), []
    for key, value in settings.items():
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        plain = [str(one) for one in texts if isinstance(one, str | int | float)]
        if key == "name" or not plain or len(plain) < len(texts) or sum(map(len, plain)) > SHORT:
            continue
        told.append(listed(plain) if key == name else f"{key} {listed(plain)}")
    return f"{name} ({', '.join(told)})" if told else name


def data_table(data: Data) -> Values | None:
    """A row for each spec: what it read of the rows and what it left out; None where that was not written down."""
    specs = data.get("specs") or {}
    if not specs:
        return None
    reasons = list(
        dict.fromkeys(reason for one in specs.values() for reason, count in one["left_out"].items() if count)
    )
    columns = ["", "kind of row", "read", *(f"left out: {reason}" for reason in reasons)]
    columns += ["used", "distinct prompts", "fingerprint"]
    rows = [
        [
            name,
            str(one["unit"]),
            number(one["read"]),
            *(number(one["left_out"].get(reason, 0)) for reason in reasons),
            number(one["used"]),
            number(one["distinct_prompts"]),
            str(one.get("fingerprint", NOTHING))[:12],
        ]
        for name, one in specs.items()
    ]
    note = "Rows with the same fingerprint are the same tokens and labels."
    if held := held_out(data):
        note += f" {held}"
    files = [f"data.{split}: {data[split]}" for split in ("train", "validation") if data.get(split)]
    prints = [f"sha256 of {name}: {str(told)[:12]}" for name, told in (data.get("sources") or {}).items()]
    return Values(columns, rows, " ".join([note, *(f"{one}." for one in (*files, *prints))]))


def held_out(data: Data) -> str:
    """How many prompts were answered, of how many, in a sentence; "" where that was not written down."""
    answered, different, both = (
        data.get(name) for name in ("held_out", "held_out_different", "held_out_also_trained_on")
    )
    if answered is None:
        return ""
    said = f"{number(answered)} held-out prompts were answered"
    if different is not None:
        said += f" of the {number(different)} different ones of data.validation"
    parts = [f"{number(both)} were left out, as data.train has them, too"] if both else []
    if different is not None and different > answered + (both or 0):
        parts.append(f"{number(different - answered - (both or 0))} were not asked for (--prompts)")
    return "; ".join([said, *parts]) + "."


def differing(found: Sequence[Data], specs: Sequence[str]) -> Values | None:
    """Every setting that is not the same for all, one a row; None where nothing differs or it was not written down."""
    if not found:
        return None
    rows = [[one["setting"], *(_value(one["values"].get(name)) for name in specs)] for one in found]
    return Values(["setting", *specs], rows, "– : the spec has no such setting.")


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value, 6)
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items()) or "none"
    return str(value)


def made_table(found: Compared) -> Values | None:
    """Where, when and from what a comparison was made, one fact a row; None where it was not written down."""
    made = found.result.get("made") or {}
    if not made:
        return None
    command = {"command": " ".join(map(str, made["command"]))} if made.get("command") else {}
    rows = [[name, told] for name, told in _flat({**made, **command})]
    return Values(["", ""], rows)


def _flat(part: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(part, Mapping):
        return [row for key, value in part.items() for row in _flat(value, f"{name}: {key}" if name else str(key))]
    return [] if part is None else [(name, _value(part))]


def costs(found: Compared) -> Values | None:
    """One row a training, and what the comparison itself took; None where nothing was trained."""
    if not found.costs:
        return None
    columns = ["policy", "seed", "steps", "tokens", "generations", "judgements", "wall time", "training time"]
    columns += ["tokens/s", "peak GiB", "peak lr"]
    rows = [_cost(one) for own in by_policy(found.costs).values() for one in own]
    parts = found.result.get("phases") or {}
    took = [f"{told} {duration(parts[key])}" for key, told in PHASES.items() if parts.get(key) is not None]
    return Values(columns, rows, f"{NOTE} The whole comparison: {', '.join(took)}." if took else NOTE)


PHASES = {"training_s": "trainings", "sampling_s": "answers", "judging_s": "judgements", "total_s": "all of it"}
NOTE = (
    "Wall time is from the loading of the weights to the last checkpoint, with all that was drawn and judged; training "
    "time is inside optimiser steps. Peak lr: largest learning rate of a step, as a share of what the spec says."
)


def _cost(one: Cost) -> list[str]:
    return [
        one.policy,
        str(one.seed) if one.untrained is None else f"{one.seed} (nothing was trained)",
        number(one.steps),
        number(one.tokens),
        number(one.generations),
        number(one.judgements),
        NOTHING if one.wall_seconds is None else duration(one.wall_seconds),
        duration(one.seconds),
        number(round(one.tokens_per_second)),
        fixed(one.peak_memory_gib, 2),
        NOTHING if one.lr_share is None else f"{100 * one.lr_share:.0f} %",
    ]


def run_pages(found: Compared) -> dict[str, list[tuple[str, str]]]:
    """Pages of the trainings that there are, by spec: name of the seed, and address from the comparison's folder."""
    home = home_of(found.folder)
    pages: dict[str, list[tuple[str, str]]] = {}
    for name in found.result["specs"]:
        for seed in found.request["seeds"]:
            page = run_folder(home, name, seed) / RUN_PAGE
            if page.is_file():
                address = quote(Path(os.path.relpath(page, found.folder)).as_posix())
                pages.setdefault(name, []).append((f"seed {seed}", address))
    return pages

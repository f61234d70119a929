"""Held-out rows of a run that plays no rounds, with what the trained model says of them where `predict` has said it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from nashtune.data.messages import Prompt
from nashtune.data.parse import Example, Pair, Ranked, parse_row
from nashtune.data.sources import read_source
from nashtune.errors import InputError
from nashtune.html.browser import Answer, Browser, Item, by_length, that_fit
from nashtune.html.prompts import Prompts
from nashtune.html.row_tokens import Used, used_rows
from nashtune.html.run_files import Run
from nashtune.html.words import number

PREDICTIONS = "predictions.jsonl"
ORIGIN = ("weights", "data", "made_by")
"""What each line of predictions says it is of."""
SHORTEST = len("sha256:") + 16
Prediction = Mapping[str, Any]


def row_browser(run: Run, prompts: Prompts) -> Browser | None:
    """Rows of `data.test`, or else of `data.validation`, which is what `nashtune predict` reads; None without them.

    Args:
        run: The run.
        prompts: Has its tokenizer, which tells which rows were used.

    Raises:
        InputError: RUN/predictions.jsonl is not what `nashtune predict` prints.
    """
    data = run.config.get("data") or {}
    split = "test" if data.get("test") else "validation"
    source = data.get(split)
    if not source:
        return None
    about = f"Rows of data.{split}, {source}, as that file is today."
    try:
        rows = [parse_row(raw.data or {}, raw.where) for raw in islice(read_source(source), data.get("limit"))]
    except ValueError as error:  # InputError of the file, RowError of a row
        return Browser("held-out rows", about, [], 0, notes=[f"{source} cannot be shown: {error}"])
    used, notes = _used(run, split, prompts)
    known, more = _predictions(run, used)
    if used is not None:
        places = set(used.where)
        rows = [row for row in rows if row.where in places]
    items = [_item(row, known.get(row.where)) for row in rows]
    winner = "the model" if known else "chosen is the"
    notes += more
    return Browser("held-out rows", about, that_fit([items])[0], len(items), winner, "margin" if known else "", notes)


def _used(run: Run, split: str, prompts: Prompts) -> tuple[Used | None, list[str]]:
    """The rows that the run has used, and what a reader must know; None where it cannot be said."""
    tokenizer = prompts.tokenizer()
    if tokenizer is None:
        return None, [f"Which rows the run has used cannot be said: {'; '.join(prompts.notes)}"]
    try:
        used = used_rows(run, split, tokenizer)
    except InputError as error:
        return None, [f"Which rows the run has used cannot be said: {error}"]
    out = used.read - len(set(used.where))
    if not out:
        return used, []
    return used, [
        f"The run has used {used.read - out} of {used.read} rows, which are those shown; {out} were left out, as too "
        "long or without a preference."
    ]


def _predictions(run: Run, used: Used | None) -> tuple[dict[str, Prediction], list[str]]:
    """By place of a row, and what a reader must know; none where they are not of these rows and these weights."""
    path = run.folder / PREDICTIONS
    if not path.exists():
        return {}, [
            f"No implicit rewards: {path.name} is not in the run folder. `nashtune predict` prints it: "
            f"nashtune predict --ckpt_path {path.parent / 'checkpoints'}/step=N.ckpt > {path}"
        ]
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        known = {int(one["row"]): one for one in found}
        origins = {name: {one.get(name) for one in found} for name in ORIGIN}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not what `nashtune predict` prints ({error}); write it again") from error
    why = _elsewhere(run, used, origins) if used is not None else "which rows it numbers is not known"
    if not why and used is not None and (len(found) != len(used.where) or set(known) != set(range(len(used.where)))):
        why = f"it numbers {len(found)} rows, and the run has used {len(used.where)}"
    if not why and used is not None and len(set(used.where)) < len(used.where):
        why = "several of its numbers are of one row of the file"
    if why or used is None:
        return {}, [f"Rewards are not shown, {path.name} does not belong here: {why}"]
    return {where: known[place] for place, where in enumerate(used.where)}, []


def _elsewhere(run: Run, used: Used, origins: Mapping[str, set[Any]]) -> str:
    """Why predictions are not of this run's weights and rows; "" where they are."""
    for name, of in origins.items():
        if len(of) != 1 or not isinstance(next(iter(of)), str):
            return f"its lines do not name one and the same {name}; write it again with: nashtune predict"
    ((weights,), (data,), _) = origins.values()
    trained = (run.report or {}).get("weights")
    if weights != trained:
        return f"it is of the weights {weights}, and the run has ended with {trained or 'none yet'}"
    if len(data) < SHORTEST or f"sha256:{used.fingerprint}".find(data) != 0:
        return "it is of other rows than data has today"
    return ""


def _item(row: Pair | Example | Ranked, known: Prediction | None) -> Item:
    prompt = as_text(row.prompt)
    if isinstance(row, Example):
        label = "desirable" if row.desirable else "undesirable"
        reward = f"reward {number(known['reward'], sign=True)}" if known and "reward" in known else ""
        side = "win" if row.desirable else "loss"
        return Item(
            0, prompt, [Answer(label, row.completion, detail=reward, side=side)], (known or {}).get("reward"), label
        )
    if isinstance(row, Ranked):
        order = sorted(range(len(row.responses)), key=lambda i: -row.scores[i])
        answers = [
            Answer(f"score {number(row.scores[i])}", row.responses[i], side="win" if not place else "")
            for place, i in enumerate(order)
        ]
        return Item(0, prompt, answers, None, by_length(len(answers[0].text), len(answers[-1].text)))
    rewards = [(known or {}).get(name) for name in ("reward_chosen", "reward_rejected")]
    told = ["" if value is None else f"implicit reward {number(value, sign=True)}" for value in rewards]
    pair = Answer("chosen", row.chosen, None, told[0], "win"), Answer("rejected", row.rejected, None, told[1], "loss")
    if rewards[0] is None or rewards[1] is None:
        return Item(0, prompt, pair, None, by_length(len(row.chosen), len(row.rejected)))
    margin = float(rewards[0]) - float(rewards[1])
    return Item(0, prompt, pair, margin, "agrees" if margin > 0 else "disagrees" if margin < 0 else "is undecided")


def as_text(prompt: Prompt) -> str:
    """A prompt as one text: of a conversation each turn with its role."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n".join(f"[{turn.role}] {turn.content}" for turn in prompt)

"""One raw row becomes a pair, an example or a ranked row. Importing this imports no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nashtune.data.messages import Prompt, RowError, parse_completion, parse_prompt, shown

PREFERENCE = ("prompt", "chosen", "rejected", "p_chosen", "margin")
UNPAIRED = ("prompt", "completion", "label")
RANKED = ("prompt", "responses", "scores")
RESPONSE = ("text", "score", "win_rate")
COLUMNS = {"preference": PREFERENCE, "unpaired": UNPAIRED, "ranked": RANKED}
KNOWN = {name for names in COLUMNS.values() for name in names}
NEEDED = {"preference": {"chosen", "rejected"}, "unpaired": {"completion", "label"}, "ranked": {"responses"}}
CLOSE = 0.8  # likeness above which a column counts as a misspelt one; 'chosen_model' and 'chosen' are at 0.67


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A preference: `chosen` was preferred to `rejected`.

    Args:
        prompt: Text, or the messages before the answer.
        chosen: The preferred answer.
        rejected: The other answer.
        p_chosen: Probability that chosen is better, in [0, 1], where the row says so.
        margin: By how much chosen should win, in the units of a reward, >= 0, where the row says so and it is read.
        where: `file:line`.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    p_chosen: float | None
    margin: float | None = None
    where: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One answer with its label.

    Args:
        prompt: Text, or the messages before the answer.
        completion: The answer.
        desirable: Whether it is one to encourage.
        where: `file:line`.
    """

    prompt: Prompt
    completion: str
    desirable: bool
    where: str


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Several answers with scores, higher is better.

    Args:
        prompt: Text, or the messages before the answer.
        responses: The answers.
        scores: One finite number each.
        where: `file:line`.
    """

    prompt: Prompt
    responses: tuple[str, ...]
    scores: tuple[float, ...]
    where: str

    @property
    def levels(self) -> tuple[int, ...]:
        """Of each answer, how many different scores are above its own: 0 for the best, the same for equal scores."""
        order = sorted(set(self.scores), reverse=True)
        return tuple(order.index(score) for score in self.scores)


def parse_row(data: Mapping[str, Any], where: str) -> Pair | Example | Ranked:
    """Tell the format of a row by its columns, and read it; null columns count as absent.

    Raises:
        RowError: something is missing, wrong or unclear.
    """
    row = {name: value for name, value in data.items() if value is not None}
    form = row_format(row)
    if form == "preference":
        return _preference(row, where)
    return _unpaired(row, where) if form == "unpaired" else _ranked(row, where)


def row_format(row: Mapping[str, Any]) -> str:
    """'preference', 'unpaired' or 'ranked', by the columns that only one of them has.

    Raises:
        RowError: the columns fit none of them, or several.
    """
    whole = [form for form, names in NEEDED.items() if names <= row.keys()]
    if (
        len(whole) == 1
    ):  # a further format's column, such as a label beside chosen and rejected, is one that is not used
        return whole[0]
    own = {form: set(names) - {"prompt"} for form, names in COLUMNS.items()}
    fits = [form for form, names in own.items() if names & row.keys()]
    if len(fits) > 1:
        mixed = ", ".join(sorted(set().union(*(own[form] & row.keys() for form in fits))))
        raise RowError(f"the columns {mixed} belong to different formats ({' and '.join(fits)}); keep one format's")
    if fits:
        return fits[0]
    wanted = "; ".join(f"{form}: {', '.join(names)}" for form, names in COLUMNS.items())
    found = ", ".join(sorted(row)) or "nothing"
    raise RowError(f"no known columns, found {found}{misspelt(row, set().union(*own.values()))} ({wanted})")


def likeness(name: str, known: Iterable[str]) -> str | None:
    """The known column that `name` is a misspelling of, if any."""
    match = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=CLOSE)
    return match[0] if match else None


def misspelt(row: Mapping[str, Any], wanted: Iterable[str]) -> str:
    """The end of a message where a column of the row looks like one of those that are wanted; else ""."""
    missing = set(wanted) - row.keys()
    for name in row:
        if name not in KNOWN and (match := likeness(name, missing)):
            return f"; did you mean '{match}' by '{name}'? Rename the column"
    return ""


def _need(row: Mapping[str, Any], column: str, form: str) -> Any:
    if column not in row:
        found = ", ".join(sorted(row)) or "nothing"
        raise RowError(f"no '{column}' in this {form} row, found {found}{misspelt(row, (column,))}")
    return row[column]


def _preference(row: Mapping[str, Any], where: str) -> Pair:
    chosen_raw, rejected_raw = _need(row, "chosen", "preference"), _need(row, "rejected", "preference")
    asked = parse_prompt(row["prompt"]) if "prompt" in row else None
    if asked is None and (hint := misspelt(row, ("prompt",))):
        raise RowError(f"no 'prompt' in this preference row{hint}")
    prompt, chosen = parse_completion(chosen_raw, "chosen", asked)
    other, rejected = parse_completion(rejected_raw, "rejected", asked)
    chats = [p for p in (prompt, other) if isinstance(p, tuple)]  # one may repeat the conversation and the other not
    if len(chats) == 2 and chats[0] != chats[1]:
        raise RowError(
            "the conversations in 'chosen' and 'rejected' differ before the last message; they must share the prompt"
        )
    if chosen == rejected:
        raise RowError("'chosen' and 'rejected' are identical; such a pair prefers nothing. Remove the row")
    p_chosen = _probability(row.get("p_chosen"))
    return Pair(prompt=chats[0] if chats else prompt, chosen=chosen, rejected=rejected, p_chosen=p_chosen, where=where)


def _probability(value: Any) -> float | None:
    if value is None:
        return None
    number = _number(value, "p_chosen")
    if math.isnan(number) or not 0.0 <= number <= 1.0:
        raise RowError(f"p_chosen is {value}; it is a probability in [0, 1]")
    return number


def parse_margin(value: Any) -> float:
    """By how much chosen should win.

    Raises:
        RowError: not a finite number >= 0.
    """
    number = _number(value, "margin")
    if not 0.0 <= number < math.inf:
        raise RowError(f"margin is {value}; it is a number >= 0, by how much chosen should win in units of the reward")
    return number


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{what} must be a number, found {shown(value)}")
    return float(value)


def _unpaired(row: Mapping[str, Any], where: str) -> Example:
    completion, label = _need(row, "completion", "unpaired"), _need(row, "label", "unpaired")
    asked = parse_prompt(row["prompt"]) if "prompt" in row else None
    prompt, text = parse_completion(completion, "completion", asked)
    if not isinstance(label, bool | int) or label not in (0, 1):  # NaN is a float; 1.0 is no label either
        raise RowError(f"label must be true (desirable) or false, found {shown(label)}")
    return Example(prompt=prompt, completion=text, desirable=bool(label), where=where)


def _ranked(row: Mapping[str, Any], where: str) -> Ranked:
    responses = _need(row, "responses", "ranked")
    prompt = parse_prompt(_need(row, "prompt", "ranked"))
    if not isinstance(responses, list) or len(responses) < 2:
        raise RowError(f"'responses' must be a list of at least two, found {shown(responses)}")
    texts = [_response_text(item, i, prompt) for i, item in enumerate(responses, start=1)]
    if "scores" in row:
        scores = row["scores"]
        if any(isinstance(item, dict) and {"score", "win_rate"} & item.keys() for item in responses):
            raise RowError("scores are given twice: in 'scores' and within 'responses'; keep one")
        if not isinstance(scores, list) or len(scores) != len(texts):
            raise RowError(f"'scores' must be a list of {len(texts)} numbers, one per response, found {shown(scores)}")
    else:
        scores = [_response_score(item, i) for i, item in enumerate(responses, start=1)]
    numbers = [_number(score, f"score {i}") for i, score in enumerate(scores, start=1)]
    for i, number in enumerate(numbers, start=1):
        if not math.isfinite(number):
            raise RowError(f"score {i} is {number}; scores are finite numbers")
    return Ranked(prompt=prompt, responses=tuple(texts), scores=tuple(numbers), where=where)


def _response_text(item: Any, i: int, prompt: Prompt) -> str:
    text = item.get("text") if isinstance(item, dict) else item
    if text is None:
        raise RowError(f"response {i} must be a text or {{text, score}}, found {shown(item)}")
    before, answer = parse_completion(text, f"response {i}", prompt)
    if isinstance(before, tuple) and before != prompt:
        raise RowError(
            f"the conversation in response {i} has more than 'prompt' before the answer; give it in 'prompt'"
        )
    return answer


def _response_score(item: Any, i: int) -> Any:
    given = [name for name in ("score", "win_rate") if isinstance(item, dict) and item.get(name) is not None]
    if len(given) != 1:
        raise RowError(
            f"response {i} needs a score: 'score' or 'win_rate' beside 'text', or a list 'scores' in the row"
        )
    return item[given[0]]

"""One raw row becomes a pair, an example or a ranked row. Importing this imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nashtune.data.columns import misspelt, row_format, why_no_prompt
from nashtune.data.messages import NoPrompt, Prompt, RowError, parse_completion, parse_prompt, shown


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
    try:
        if form == "preference":
            return _preference(row, where)
        return _unpaired(row, where) if form == "unpaired" else _ranked(row, where)
    except NoPrompt as error:
        raise RowError(f"{error}{why_no_prompt(data)}") from None


def _need(row: Mapping[str, Any], column: str, form: str) -> Any:
    if column not in row:
        found = ", ".join(sorted(row)) or "nothing"
        error = NoPrompt if column == "prompt" else RowError
        raise error(f"no '{column}' in this {form} row, found {found}{misspelt(row, (column,))}")
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

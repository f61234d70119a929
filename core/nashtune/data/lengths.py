"""How long a row may be, and what becomes of a longer one: an error, left out, or a shorter prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeVar

from nashtune.data.bad import BadRows

Overflow = Literal["error", "drop", "truncate_prompt"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be how long.

    Args:
        max_length: Tokens of prompt and completion together.
        max_prompt_length: Tokens of the prompt.
        overflow: What happens to a row that is longer: an error, the row is dropped, or its prompt loses its beginning
            (a BOS stays). A completion is never cut; when it does not fit behind one prompt token, the row is dropped.
        context: Tokens that the model can read, where it says so. A longer row that `max_length` lets through is an
            error.
    """

    max_length: int
    max_prompt_length: int | None = None
    overflow: Overflow = "error"
    context: int | None = None

    @property
    def whole(self) -> int:
        """Tokens that prompt and completion may have together."""
        return self.max_length if self.context is None else min(self.max_length, self.context)

    def room(self, completion: int) -> int:
        """Tokens that the prompt may have before so many completion tokens."""
        room = self.max_length - completion
        return room if self.max_prompt_length is None else min(room, self.max_prompt_length)


class Measured(Protocol):
    """A row whose prompt can be shortened: `TokenRow`, or a prompt alone; a dataclass."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt."""

    @property
    def where(self) -> str:
        """`file:line`."""


Row = TypeVar("Row", bound=Measured)
Whole = TypeVar("Whole")


@dataclass
class Fitting:
    """What became of rows whose lengths were looked at.

    Args:
        counts: `truncated`: shortened; `overflow`: left out; `completion`: left out although prompts may be shortened,
            because the completion alone does not fit.
        bad: Too long while overflow is "error", or longer than the model's context.
    """

    counts: Counter[str] = field(default_factory=Counter)
    bad: BadRows = field(default_factory=BadRows)


def fit_rows(rows: Iterable[tuple[Row, int, str]], limits: Limits, bos: int | None) -> tuple[list[Row], Counter[str]]:
    """The rows that fit, shortened where that is asked for, and how many were shortened and left out.

    Args:
        rows: Each row, the completion tokens to leave room for, and those in words.
        limits: Lengths, and what to do beyond them.
        bos: Token that a shortened prompt keeps at its beginning.

    Raises:
        InputError: a row is too long while overflow is "error", or longer than the model's context.
    """
    seen = Fitting()
    fitted = [fit_row(row, completion, words, limits, bos, seen) for row, completion, words in rows]
    seen.bad.refuse()
    return [row for row in fitted if row is not None], seen.counts


def fit_row(row: Row, completion: int, words: str, limits: Limits, bos: int | None, seen: Fitting) -> Row | None:
    """The row if it fits, shortened where that is asked for; else None.

    Args:
        row: Its prompt may be shortened.
        completion: Tokens to leave room for.
        words: Those in words.
        limits: Lengths, and what to do beyond them.
        bos: Token that a shortened prompt keeps at its beginning.
        seen: Where it is counted, and where it is noted as bad.
    """
    room, prompt = limits.room(completion), row.prompt_ids
    if len(prompt) > room:
        if limits.overflow == "error":
            seen.bad.add(row.where, _too_long(len(prompt), completion, words, limits))
            return None
        short = shorten(prompt, room, bos) if limits.overflow == "truncate_prompt" else None
        if short is None:
            seen.counts["overflow" if limits.overflow == "drop" else "completion"] += 1
            return None
        seen.counts["truncated"] += 1
        row, prompt = replace(row, prompt_ids=short), short  # type: ignore[type-var]  # a dataclass, as Measured says
    if limits.context is not None and len(prompt) + completion > limits.context:
        seen.bad.add(row.where, _beyond_context(f"{len(prompt)} prompt and {words}", limits))
    return row


def fit_whole(
    row: Whole,
    longest: int,
    where: str,
    limits: Limits,
    words: str,
    shorter: Callable[[Whole], Whole | None] | None,
    seen: Fitting,
) -> Whole | None:
    """The row if it fits whose completions are whole conversations, or answers to one question; else None.

    Args:
        row: Any row.
        longest: Tokens of its longest text.
        where: `file:line`.
        limits: Lengths, and what to do beyond them.
        words: What is counted, for messages.
        shorter: Makes a row fit, or says that its answers alone do not; None where nothing can be cut.
        seen: Where it is counted, and where it is noted as bad.
    """
    tokens = longest
    if longest > limits.max_length:
        if limits.overflow == "error":
            choices = "drop (leave such rows out)" + (" or truncate_prompt (keep the text's end)" if shorter else "")
            found = f"{longest} {words} are more than data.max_length {limits.max_length}"
            seen.bad.add(where, f"{found}; raise the limit, or choose data.overflow: {choices}")
            return None
        short = shorter(row) if shorter is not None and limits.overflow == "truncate_prompt" else None
        if short is None:
            seen.counts["overflow" if limits.overflow == "drop" else "completion"] += 1
            return None
        seen.counts["truncated"] += 1
        row, tokens = short, limits.max_length
    if limits.context is not None and tokens > limits.context:
        seen.bad.add(where, _beyond_context(f"{tokens} {words}", limits))
    return row


def shorten(prompt_ids: Sequence[int], room: int, bos: int | None) -> tuple[int, ...] | None:
    """The end of a prompt in `room` tokens, behind its BOS if it has one; None when no token of the text fits."""
    if len(prompt_ids) <= room:
        return tuple(prompt_ids)
    first = tuple(prompt_ids[:1]) if bos is not None and prompt_ids[0] == bos else ()
    rest = room - len(first)
    return (*first, *prompt_ids[-rest:]) if rest > 0 else None


def _too_long(prompt: int, completion: int, words: str, limits: Limits) -> str:
    if prompt + completion > limits.max_length:
        found = f"{prompt} prompt and {words} are more than data.max_length {limits.max_length}"
    else:
        found = f"{prompt} prompt tokens are more than data.max_prompt_length {limits.max_prompt_length}"
    choices = "drop (leave such rows out) or truncate_prompt (keep the prompt's end)"
    return f"{found}; raise the limit, or choose data.overflow: {choices}"


def _beyond_context(tokens: str, limits: Limits) -> str:
    return (
        f"{tokens} are more than the model's context of {limits.context} tokens "
        f"(max_position_embeddings); data.max_length is {limits.max_length}, set it to {limits.context} or less"
    )

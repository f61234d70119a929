"""What a judge is asked, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from nashtune.errors import InputError

QUESTION = """Here are a request and two answers to it. Decide which answer is better: more helpful, correct and clear.
Neither the order of the answers nor their length counts.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Reply with [[A]] if answer A is better, with [[B]] if answer B is better, or with [[tie]] if they are equally good.
Reply with nothing else."""
REMINDER = "Reply with [[A]], [[B]] or [[tie]] and nothing else."
VERDICT = r"\[\[(A|B|tie)\]\]"


def verdict_reader(pattern: str, verdicts: Sequence[str]) -> Callable[[str], int | None]:
    """Answer -> 1 (the first is better), -1 (the second), 0 (a tie), or None where it does not say one thing.

    Args:
        pattern: Regular expression with one group.
        verdicts: What the group holds for first, second and tie.

    Raises:
        InputError: the pattern is no regular expression or has not one group, or the verdicts are not three.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"oracle.verdict: {pattern!r} is not a regular expression: {error}") from error
    if compiled.groups != 1:
        raise InputError(
            f"oracle.verdict: {pattern!r} has {compiled.groups} groups; put one pair of ( ) around the verdict, and "
            "write others as (?: )"
        )
    if len(verdicts) != 3 or len(set(verdicts)) != 3:
        raise InputError(f"oracle.verdicts: {list(verdicts)}; give three different texts: first, second, tie")
    meaning = dict(zip(verdicts, (1, -1, 0), strict=True))

    def read(answer: str) -> int | None:
        said = {match.group(1) for match in compiled.finditer(answer)}
        return meaning.get(said.pop()) if len(said) == 1 else None

    return read

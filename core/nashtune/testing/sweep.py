"""Tries a component with each of its options, and asks whether what its class declares is read with any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nashtune.testing.contract import ContractError, require
from nashtune.testing.declared import check_class
from nashtune.testing.subject import Subject

B = TypeVar("B")


def sweep(
    subject: Subject,
    options: Mapping[str, Any],
    rule: str,
    declared: set[str],
    bench_of: Callable[[Any, dict[str, Any]], B],
    check: Callable[[B], set[str]],
    effective: Callable[[B], set[str]],
) -> None:
    """Check a component's class, every object of it, and what it declares.

    Args:
        subject: The component.
        options: The caller's.
        rule: Of what is declared and read by nobody.
        declared: What its class says it reads.
        bench_of: Runs an object that was made with some options.
        check: Checks it, and says which of what is declared changes something.
        effective: Says that alone.

    Raises:
        ContractError: it breaks a rule.
    """
    check_class(subject)
    read: set[str] = set()
    for chosen, made in subject.swept(options):
        read |= check(bench_of(made, chosen))
    for chosen, made in subject.swept(options, all_choices=True) if declared - read else ():
        try:  # the class declares for values too that the caller left out; whether these are sound was not asked
            read |= effective(bench_of(made, chosen))
        except ContractError:
            continue
    unread = sorted(declared - read)
    said = f"it declares {', '.join(unread)}, which changes nothing with any option"
    require(not unread, subject.who, rule, said)

"""What a conformance vector gives."""

from __future__ import annotations

from dataclasses import dataclass

Output = float | list[float] | list[list[float]]
"""A number, one per row, or for rollouts one per token of each completion."""


@dataclass(frozen=True)
class CaseResult:
    """What a case gave.

    Args:
        outputs: Loss, gradients, and what the KL controller shows.
        further: Other values that a case may expect: the loss's metrics and the controller's report, by name.
        unread: Standard inputs that were given and that this method does not read.
    """

    outputs: dict[str, Output]
    further: dict[str, Output]
    unread: list[str]

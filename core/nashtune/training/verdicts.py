"""From what a model said of a split's rows to the report on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nashtune.evaluation.reward_report import comparison_report, reward_report

if TYPE_CHECKING:
    from nashtune.data.module import PreferenceData
    from nashtune.evaluation.reward_scores import HeldOutScores


def report_verdicts(
    verdicts: HeldOutScores | None, data: PreferenceData, split: str, seed: int
) -> dict[str, Any] | None:
    """The report on a reward or preference model; None for other policies, and where no pair was seen.

    Args:
        verdicts: What the module collected.
        data: The run's.
        split: Whose rows they are.
        seed: Of the bootstrap.
    """
    if verdicts is None:
        return None
    prompts = [row.prompt_text for row in data.every_row(split).rows]
    if not verdicts.comparisons:
        return reward_report(verdicts, prompts, seed=seed)
    report = comparison_report(verdicts, prompts)
    return report if report["pairs"] else None

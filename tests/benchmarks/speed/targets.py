"""Everything that is required, against what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from speed import cases, commands, epsilon, heads, online

PADDING = 0.03


@dataclass(frozen=True)
class Target:
    """One requirement.

    Args:
        what: In words.
        value: As measured.
        limit: At least or at most.
        least: Whether `limit` is the least; else the most.
    """

    what: str
    value: float
    limit: float
    least: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """In words, with what is lacking."""
        if self.met:
            return "met"
        return f"**not met**, by {abs(self.value / self.limit - 1):.0%}"


def targets(results: dict[str, Any]) -> Iterator[Target]:
    """Those that these results say something about; small data say nothing of speed."""
    yield from _commands(results)
    if results["settings"]["quick"]:
        return
    for case, entry in results["cases"].items():
        if case in results["failed"]:  # other mathematics: no figure of it counts
            continue
        for what, value, sign, limit, _ in cases.verdicts(case, entry["summary"]["ratios"]):
            yield Target(f"{case}: {what}", value, limit, sign == ">=")
        shares = entry["summary"]["peers"][cases.NASHTUNE].get("padding_share")
        if shares is not None:
            yield Target(f"{case}: padding share", shares["median"], PADDING, False)
    if found := results.get("online"):
        for name, ratio in found["ratios"].items():
            yield Target(f"online round, {name}: times TRL's speed", ratio, online.TARGETS[name], True)
    if found := results.get("heads"):
        ratios = found["fp32"]["ratios"]
        what = f"LM head alone, float32: time, wall (in CPU seconds {ratios['cpu']:.3g})"
        yield Target(what, ratios["wall"], heads.TARGETS["wall"], False)
        what = f"LM head alone, float32: memory above the gradients (with them {ratios['with_gradients']:.2g})"
        yield Target(what, ratios["memory"], heads.TARGETS["memory"], False)
    if found := results.get("epsilon"):
        for name, limit in epsilon.TARGETS.items():
            yield Target(f"ε-DPO step against a DPO step: {name.split('_')[0]}", found["ratios"][name], limit, False)


def _commands(results: dict[str, Any]) -> Iterator[Target]:
    for one in results.get("commands") or []:
        if one["plugins"] == 0 and one["command"] in ("--help", "list", "check dpo", "check dpo --config demo"):
            yield Target(f"`nashtune {one['command']}`, seconds", one["median"], commands.LIMIT, False)

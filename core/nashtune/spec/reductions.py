"""What other method a spec is: `about.reduces_to`, by entry, with the settings at which it holds.

`exact` is a claim about the objective: wherever the settings and the words hold, both give the same gradient on the
same rows. An entry that is not exact says what the method comes near to, or would be if something changed that no
setting changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nashtune.errors import nearest
from nashtune.spec.model import NONE, SECTIONS
from nashtune.spec.types import Mismatch, Typed, describe

KEYS: dict[str, str] = {
    "method": "Name of the other spec; words where there is none.",
    "exact": "Whether the gradient is the same on the same rows, or only near it or in a limit.",
    "at": "Settings of this spec at which it holds, such as {kl.epsilon: 0.0}.",
    "with": "Settings of the other spec, likewise.",
    "when": "What else must hold, or the rule behind the settings, in words.",
}
"""Key of an entry -> what it says."""
SETTINGS = tuple(section for section in SECTIONS if section != "about")


@dataclass(frozen=True)
class Reduction:
    """One entry.

    Args:
        method: Name of a spec, or words.
        exact: Whether the gradients are equal.
        at: Settings of this spec, by dotted key.
        there: Settings of the other one.
        when: What else must hold; "" for nothing.
    """

    method: str
    exact: bool
    at: Mapping[str, Any] = field(default_factory=dict)
    there: Mapping[str, Any] = field(default_factory=dict)
    when: str = ""

    def condition(self) -> str:
        """When it holds, in words: "with loss.tau: 0.01, at loss.eta: 100 here, in round 1 (τ = 1/η)"."""
        there, here = _settings(self.there), _settings(self.at)
        parts = [*([f"with {there}"] if there else []), *([f"at {here} here"] if here else [])]
        return ", ".join([*parts, *([self.when] if self.when else [])])

    def __str__(self) -> str:
        """As a sentence would say it: "dpo at kl.epsilon: 0.0 here"."""
        condition = self.condition()
        comma = "" if condition.startswith(("at ", "with ")) else ", "
        return self.method + (comma or " " if condition else "") + condition


def check_reductions(value: Any) -> Any:
    """What a spec says, if it has the right form: `none`, or a list of mappings. Text is from an older version's run.

    Raises:
        Mismatch: what is wrong, and in which entry.
    """
    value = value.value if isinstance(value, Typed) else value
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or not value:
        raise Mismatch(
            "expected none, or a list such as [{method: dpo, exact: true, at: {kl.epsilon: 0.0}}], found "
            + describe(value)
        )
    return [_entry(number, one) for number, one in enumerate(value, start=1)]


def _entry(number: int, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise Mismatch(f"entry {number}: expected a mapping with method and exact, found {describe(entry)}")
    for key in entry:
        if key not in KEYS:
            raise Mismatch(f"entry {number}: '{key}' is not known{nearest(str(key), KEYS)}")
    kinds: dict[str, tuple[type, str]] = {
        "method": (str, "text"),
        "exact": (bool, "true or false"),
        "when": (str, "text"),
    }
    for key, (kind, words) in kinds.items():
        if key not in entry and key != "when":
            raise Mismatch(f"entry {number}: needs {key}: {words} ({KEYS[key][0].lower()}{KEYS[key][1:-1]})")
        if key in entry and (not isinstance(entry[key], kind) or entry[key] == ""):
            raise Mismatch(f"entry {number}: {key}: expected {words}, found {describe(entry[key])}")
    for key in {"at", "with"} & entry.keys():
        _check_settings(f"entry {number}: {key}", entry[key])
    if entry.keys() <= {"method", "exact"}:
        raise Mismatch(f"entry {number}: says of {entry['method']} nothing but its name; add at, with or when")
    return dict(entry)


def _check_settings(where: str, given: Any) -> None:
    if not isinstance(given, Mapping) or not given:
        raise Mismatch(f"{where}: expected settings by dotted key, such as {{loss.tau: 0.1}}, found {describe(given)}")
    for key, value in given.items():
        section, dot, option = str(key).partition(".")
        if section not in SETTINGS:
            raise Mismatch(f"{where}: '{key}' begins with no section of a spec{nearest(section, SETTINGS)}")
        if dot and not option:
            raise Mismatch(f"{where}: '{key}' ends in a dot; write SECTION.OPTION")
        if isinstance(value, Mapping):
            raise Mismatch(f"{where}: '{key}': expected one value, found {describe(value)}; write its keys with dots")


def reductions(about: Mapping[str, Any]) -> list[Reduction]:
    """The entries of a checked `about` section; none where it says none, or has the text of an older version's run."""
    found = about.get("reduces_to", NONE)
    if isinstance(found, str):
        return []
    return [
        Reduction(one["method"], one["exact"], one.get("at", {}), one.get("with", {}), one.get("when", ""))
        for one in found
    ]


def reduction_text(about: Mapping[str, Any]) -> str:
    """All of it in one line, for pages: "exactly dpo at kl.epsilon: 0.0 here; nearly rloo, where ..."."""
    found = about.get("reduces_to", "")
    if isinstance(found, str):
        return "" if found == NONE else found
    return "; ".join(f"{'exactly' if one.exact else 'nearly'} {one}" for one in reductions(about))


def _settings(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value if isinstance(value, str) else describe(value)}" for key, value in given.items())

"""What a plugin hands to nashtune: a component's kind, name and place. Data only; nothing is imported to list it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nashtune.errors import nearest

API = 1
"""Version of the plugin interface. A component written for a newer one is refused."""

KINDS: dict[str, tuple[str, ...]] = {
    "loss": ("nashtune.interfaces.loss:Loss",),
    "kl": ("nashtune.interfaces.kl:KLController",),
    "reference": ("nashtune.interfaces.reference:Reference",),
    "oracle": ("nashtune.interfaces.oracle:RewardOracle", "nashtune.interfaces.oracle:PreferenceOracle"),
    "sampler": ("nashtune.interfaces.sampler:Sampler",),
    "pairing": ("nashtune.interfaces.pairing:Pairing",),
    "schedule": ("nashtune.interfaces.schedule:Schedule",),
    "stage": ("nashtune.interfaces.stage:Stage",),
}
"""Kind of component -> the interfaces it may implement, one of which is required."""

NAME = re.compile(r"[a-z][a-z0-9_]*")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def article(kind: str) -> str:
    """`a loss`, `an oracle`."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


@dataclass(frozen=True)
class Component:
    """One component of a plugin.

    Args:
        kind: One of `KINDS`.
        name: What a spec calls it: lower-case letters, digits and underscores.
        target: Its class, "package.module:Class".
        api: The plugin interface it was written for.
    """

    kind: str
    name: str
    target: str
    api: int = 1

    def exact(self) -> Component:
        """The same in plain text and numbers: what a plugin has derived from them may have any code within."""
        parts = (self.kind, self.name, self.target, self.api)
        return Component(*map(_exact, parts))  # type: ignore[arg-type]  # what is of another type is `problem`'s affair

    def problem(self) -> str | None:
        """Why this component cannot be registered, or None."""
        who = f"{self.kind} '{self.name}'"
        if not isinstance(self.api, int) or isinstance(self.api, bool) or self.api < 1:
            return f"{who}: api is {self.api!r}; it must be a whole number from 1 to {API}"
        if self.api > API:
            return f"{who} needs plugin API {self.api}, this nashtune has {API}; upgrade nashtune"
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            return f"'{self.name}' is of unknown kind '{self.kind}'{nearest(str(self.kind), KINDS)}"
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name) or self.name == "none":
            return f"{who}: a name is made of a-z, 0-9 and _, begins with a letter, and is not 'none'"
        if not isinstance(self.target, str) or not TARGET.fullmatch(self.target):
            return f"{who}: target is {self.target!r}; it must be 'package.module:Class'"
        return None


def _exact(part: object) -> object:
    if isinstance(part, str):
        return str.__str__(part)
    if isinstance(part, int) and not isinstance(part, bool):
        return int.__int__(part)
    return part if part is None or isinstance(part, bool) else f"{part!r}"


@dataclass(frozen=True)
class Problem:
    """What `nashtune_components` may return beside components: a part of the plugin that could not be read.

    Args:
        where: Module or file:line.
        reason: What is wrong and what to do.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"

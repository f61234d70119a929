"""What is known of one plugin: where it is from, what can be used of it, and why the rest cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nashtune.plugins.component import Component
from nashtune.plugins.spec_files import SpecFile

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

BLOCK = "NASHTUNE_BLOCK"


@dataclass
class PluginRecord:
    """One plugin, loaded or not.

    Args:
        name: Entry-point name.
        dist: Distribution that brought it; "" when unknown.
        version: Of the distribution; "" when unknown.
        status: "ok"; "failed": nothing of it is used; "refused": not all of it is; "blocked": by the user.
        reason: Why it is not "ok".
        components: What can be used of it.
        spec_dirs: Its folders of specs.
        spec_files: What of them is known by name.
        module: What its entry point names.
        said: Whether stderr has its line already, which is enough.
    """

    name: str
    dist: str = ""
    version: str = ""
    status: Literal["ok", "failed", "refused", "blocked"] = "ok"
    reason: str = ""
    components: list[Component] = field(default_factory=list)
    spec_dirs: list[Traversable] = field(default_factory=list)
    spec_files: list[SpecFile] = field(default_factory=list)
    module: str = ""
    said: bool = False

    def complain(self, reason: str, status: Literal["failed", "refused", "blocked"]) -> None:
        """Note one more thing that is wrong."""
        reason = " ".join(reason.split())
        self.reason = f"{self.reason}; {reason}" if self.reason else reason
        self.status = status

    def line(self) -> str:
        """`plugin 'acme' (acme-losses 1.2) failed: reason`."""
        origin = f" ({self.dist} {self.version})" if self.dist and self.dist != self.name else ""
        what = {"failed": "failed", "refused": "is not used in full", "blocked": f"is blocked by {BLOCK}"}[self.status]
        return f"plugin '{self.name}'{origin} {what}" + (f": {self.reason}" if self.reason else "")

    def unless_said(self, reason: str) -> str:
        """A reason that its line holds, which is given once."""
        return "its plugin cannot be used in full, as said above" if self.said else reason

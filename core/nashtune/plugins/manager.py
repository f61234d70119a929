"""Finding and loading plugins. A plugin that fails is recorded, said once, and never stops the others.

pluggy's own loader stops at the first entry point that cannot be imported, hence the loop here.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal

import pluggy

import nashtune
from nashtune import general
from nashtune.errors import InputError, nearest
from nashtune.plugins import hookspecs
from nashtune.plugins.component import Component
from nashtune.plugins.hookcalls import Offer, ask
from nashtune.plugins.loading import said
from nashtune.plugins.registry import Registered, Registry

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

STRICT = "NASHTUNE_STRICT_PLUGINS"
BLOCK = "NASHTUNE_BLOCK"
OWN = "nashtune"
"""Name of the core as a plugin, and of the distribution whose names win over others'."""


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
    """

    name: str
    dist: str = ""
    version: str = ""
    status: Literal["ok", "failed", "refused", "blocked"] = "ok"
    reason: str = ""
    components: list[Component] = field(default_factory=list)
    spec_dirs: list[Traversable] = field(default_factory=list)

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


class Plugins:
    """Everything that was found.

    Attributes:
        registry: Components by kind and name.
        records: One per plugin, in the order of loading: the core's own, the built-in set, then others by name.
    """

    def __init__(self) -> None:
        self.registry = Registry(self.note)
        self.records: list[PluginRecord] = []

    def take(self, record: PluginRecord, offer: Offer) -> None:
        """Enter what a plugin offers under its record, and what is wrong with it."""
        for problem in offer.problems:
            record.complain(str(problem), "refused")
        for component in offer.components:
            wrong = component.problem()
            if wrong is not None:
                record.complain(wrong, "refused")
                self.registry.refuse(component, f"plugin '{record.name}' {record.version}: {wrong}")
            elif not offer.failure:
                record.components.append(component)
        if offer.failure:
            record.complain(offer.failure, "failed")
            for component in offer.components:
                self.registry.refuse(component, record.line())
            return
        record.spec_dirs = offer.spec_dirs
        for component in tuple(record.components):
            entry = Registered(component, record.name, record.version)
            for loser, reason in self.registry.add(entry, own=record.dist == OWN):
                self._drop(loser, component, reason)

    def _drop(self, plugin: str, component: Component, reason: str) -> None:
        record = next(record for record in self.records if record.name == plugin)
        record.complain(reason, "refused")
        record.components = [
            other for other in record.components if (other.kind, other.name) != (component.kind, component.name)
        ]

    def spec_dirs(self) -> list[tuple[str, Traversable]]:
        """(plugin, folder) of every folder with specs, in the order of loading."""
        return [(record.name, folder) for record in self.records for folder in record.spec_dirs]

    def note(self) -> str:
        """End of an unknown-name message: the plugins that are missing and how to learn more; "" when none is."""
        lines = [record.line() for record in self.records if record.status != "ok"]
        return f"; {'; '.join(lines)}; run `nashtune plugins` for details" if lines else ""


@functools.cache
def load_plugins() -> Plugins:
    """Every installed plugin, once per process.

    Problems are said on stderr, one line for each plugin.

    Raises:
        InputError: a plugin failed and `NASHTUNE_STRICT_PLUGINS=1`.
    """
    plugins = discover(entry_points(group=hookspecs.GROUP), os.environ)
    wrong = [record for record in plugins.records if record.status in ("failed", "refused")]
    if strict(os.environ) and wrong:
        raise InputError(f"{STRICT}=1: " + "; ".join(record.line() for record in wrong))
    absent = [record for record in plugins.records if record.status == "blocked" and record.reason]
    for record in wrong + absent:
        print(f"nashtune: {record.line()}; see `nashtune plugins`", file=sys.stderr)
    return plugins


def strict(environ: Mapping[str, str]) -> bool:
    """Whether a failing plugin is fatal."""
    value = environ.get(STRICT, "")
    if value not in ("", "0", "1"):
        raise InputError(f"{STRICT} is {value!r}; it must be 1 or 0")
    return value == "1"


def discover(found: Iterable[EntryPoint], environ: Mapping[str, str]) -> Plugins:
    """Load the core's own components, then those of `found`: nashtune's distribution first, others by name.

    `importlib.metadata.entry_points` lists a distribution that is on the path twice once: the copy that imports see.
    """
    plugins = Plugins()
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    core = PluginRecord(OWN, OWN, nashtune.__version__)
    plugins.records.append(core)
    plugins.take(core, ask(manager, OWN, general))

    blocked = {name.strip() for name in environ.get(BLOCK, "").split(",")} - {""}
    points = sorted(found, key=lambda point: (_dist(point) != OWN, point.name, _dist(point)))
    if not any(_dist(point) == OWN for point in points):
        reason = "nashtune is on the path but not installed, so its methods are not found; run `pip install -e .`"
        plugins.records.append(PluginRecord("builtin", OWN, nashtune.__version__, "failed", reason))
    for point in points:
        record = PluginRecord(point.name, _dist(point), (point.dist and point.dist.version) or "")
        taken = next((other for other in plugins.records if other.name == point.name), None)
        plugins.records.append(record)
        if point.name in blocked:
            record.complain("", "blocked")
        elif taken is not None:
            record.complain(
                f"the plugin name '{point.name}' is already used by {taken.dist} {taken.version}; "
                f"{record.dist} must give its entry point ({point.value}) another name",
                "failed",
            )
        else:
            try:
                plugin = point.load()
            except (Exception, SystemExit) as error:
                record.complain(f"{point.value} cannot be imported: {said(error)}", "failed")
            else:
                plugins.take(record, ask(manager, record.name, plugin))
    names = {point.name for point in points}
    for name in sorted(blocked - names):
        reason = f"but no installed plugin has this name{nearest(name, names)}"
        plugins.records.append(PluginRecord(name, status="blocked", reason=reason))
    return plugins


def _dist(point: EntryPoint) -> str:
    name = point.dist.name if point.dist else None
    return re.sub(r"[-_.]+", "-", name).lower() if name else ""  # damaged metadata has no name

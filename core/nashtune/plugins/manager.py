"""Finding and loading plugins. A plugin that fails is recorded, said once, and never stops the others.

pluggy's own loader stops at the first entry point that cannot be imported, hence the loop here.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pluggy

import nashtune
from nashtune import general
from nashtune.errors import InputError, nearest
from nashtune.plugins import hookspecs
from nashtune.plugins.component import Component
from nashtune.plugins.hookcalls import Offer, ask
from nashtune.plugins.importing import named
from nashtune.plugins.installed import installed, name_of, version_of
from nashtune.plugins.loading import raised_at, said
from nashtune.plugins.record import BLOCK, PluginRecord
from nashtune.plugins.registry import Registered, Registry
from nashtune.plugins.spec_files import SpecFile, taken_names
from nashtune.terminal import message

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["BLOCK", "STRICT", "PluginRecord", "Plugins", "discover", "load_plugins", "refuse_if_strict"]

STRICT = "NASHTUNE_STRICT_PLUGINS"
OWN = "nashtune"
"""Name of the core as a plugin, and of the distribution whose names win over others'."""


class Plugins:
    """Everything that was found.

    Attributes:
        registry: Components by kind and name.
        records: One per plugin, in the order of loading: the core's own, the built-in set, then others by name.
    """

    def __init__(self) -> None:
        self.registry = Registry(self.note)
        self.records: list[PluginRecord] = []
        self._own_specs: set[tuple[str, str]] = set()

    def take(self, record: PluginRecord, offer: Offer) -> None:
        """Enter what a plugin offers under its record, and what is wrong with it."""
        for problem in offer.problems:
            record.complain(str(problem), "refused")
        for component in offer.components:
            wrong = component.problem()
            if wrong is not None:
                record.complain(wrong, "refused")
                reason = f"plugin '{record.name}' {record.version}: {wrong}"
                self.registry.refuse(component, functools.partial(record.unless_said, reason))
            elif not offer.failure:
                record.components.append(component)
        if offer.failure:
            record.complain(offer.failure, "failed")
            for component in offer.components:
                self.registry.refuse(component, functools.partial(record.unless_said, record.line()))
            return
        record.spec_dirs = offer.spec_dirs
        files = offer.spec_files
        if record.dist == OWN:
            self._own_specs |= {(file.folder, file.name) for file in files}
        elif taken := taken_names(files, self._own_specs):
            record.complain(taken, "refused")
            files = [file for file in files if (file.folder, file.name) not in self._own_specs]
        record.spec_files = files
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

    def spec_files(self) -> list[tuple[str, SpecFile]]:
        """(plugin, file) of everything in those folders that is known by name."""
        return [(record.name, file) for record in self.records for file in record.spec_files]

    def modules(self) -> list[str]:
        """Modules that entry points name, of the plugins that were loaded."""
        return [record.module for record in self.records if record.module and record.status in ("ok", "refused")]

    def note(self) -> str:
        """End of an unknown-name message: the plugins that are missing and how to learn more; "" when none is.

        What stderr has said already is not said again.
        """
        missing = [record for record in self.records if record.status != "ok"]
        lines = [record.line() for record in missing if not record.said]
        above = "; it may be in a plugin that cannot be used in full, as said above"
        said = above if any(record.said for record in missing) else ""
        return said + (f"; {'; '.join(lines)}; run `nashtune plugins` for details" if lines else "")


@functools.cache
def load_plugins(*, quiet: bool = False) -> Plugins:
    """Every installed plugin, once per process.

    Args:
        quiet: Not to say problems on stderr, one line for each plugin: the caller does.

    Raises:
        InputError: a plugin failed and `NASHTUNE_STRICT_PLUGINS=1`.
    """
    points, damaged = installed()
    plugins = discover(points, os.environ)
    plugins.records += damaged
    wrong = refuse_if_strict(plugins.records)
    absent = [record for record in plugins.records if record.status == "blocked" and record.reason]
    for record in () if quiet else wrong + absent:
        print(message(f"nashtune: {record.line()}; see `nashtune plugins`"), file=sys.stderr)
        record.said = True
    return plugins


def refuse_if_strict(records: Iterable[PluginRecord]) -> list[PluginRecord]:
    """Those of which something is wrong.

    Raises:
        InputError: there are any, and `NASHTUNE_STRICT_PLUGINS=1`.
    """
    wrong = [record for record in records if record.status in ("failed", "refused")]
    if strict(os.environ) and wrong:
        raise InputError(f"{STRICT}=1: " + "; ".join(record.line() for record in wrong))
    return wrong


def strict(environ: Mapping[str, str]) -> bool:
    """Whether a failing plugin is fatal."""
    value = environ.get(STRICT, "")
    if value not in ("", "0", "1"):
        raise InputError(f"{STRICT} is {value!r}; it must be 1 or 0")
    return value == "1"


def discover(found: Iterable[EntryPoint], environ: Mapping[str, str]) -> Plugins:
    """Load the core's own components, then those of `found`: nashtune's distribution first, others by name."""
    plugins = Plugins()
    core = PluginRecord(OWN, OWN, nashtune.__version__)
    plugins.records.append(core)
    plugins.take(core, ask(_hooks(), OWN, general))

    blocked = {name.strip() for name in environ.get(BLOCK, "").split(",")} - {""}
    points = sorted(found, key=lambda point: (name_of(point.dist) != OWN, point.name, name_of(point.dist)))
    if not any(name_of(point.dist) == OWN for point in points):
        reason = "nashtune is on the path but not installed, so its methods are not found; run `pip install -e .`"
        plugins.records.append(PluginRecord("builtin", OWN, nashtune.__version__, "failed", reason))
    for point in points:
        target = EntryPoint.pattern.match(point.value)
        record = PluginRecord(point.name, name_of(point.dist), version_of(point.dist))
        record.module = target["module"] if target else ""
        taken = next((other for other in plugins.records if other.name == point.name), None)
        plugins.records.append(record)
        if point.name in blocked:
            record.complain("", "blocked")
        elif target is None:
            record.complain(
                f"its entry point {point.value!r} is no module, as in `{point.name} = package.module`", "failed"
            )
        elif taken is not None:
            record.complain(
                f"the plugin name '{point.name}' is already used by {taken.dist} {taken.version}; "
                f"{record.dist} must give its entry point ({point.value}) another name",
                "failed",
            )
        else:
            with named(point.name):
                try:
                    plugin = point.load()
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # whatever it raises is its own affair: the others go on
                    reason = f"{point.value} cannot be imported: {said(error)}{raised_at(error, point.module)}"
                    record.complain(reason, "failed")
                else:
                    plugins.take(record, ask(_hooks(), record.name, plugin))
    names = {point.name for point in points}
    for name in sorted(blocked - names):
        reason = f"but no installed plugin has this name{nearest(name, names)}"
        plugins.records.append(PluginRecord(name, status="blocked", reason=reason))
    return plugins


def _hooks() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    return manager

"""Entry points of what is installed; a distribution with damaged metadata fails alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path

from nashtune.plugins.hookspecs import GROUP
from nashtune.plugins.loading import said
from nashtune.plugins.record import PluginRecord

DAMAGED = (ValueError, TypeError, KeyError, OSError)
"""What `importlib.metadata` raises for files that are no UTF-8, no entry points, not there or not to be read."""
_OURS = re.compile(rb"\[\s*%s\s*\]" % GROUP.encode())


def installed() -> tuple[list[EntryPoint], list[PluginRecord]]:
    """The entry points of plugins, and a record of each distribution that has some and cannot be read.

    A distribution that is on the path twice counts once: the copy that imports see.
    """
    try:
        return list(entry_points(group=GROUP)), []
    except DAMAGED:
        return one_by_one(distributions())


def one_by_one(found: Iterable[Distribution]) -> tuple[list[EntryPoint], list[PluginRecord]]:
    """`installed`, where at least one of them is damaged."""
    points: list[EntryPoint] = []
    records: list[PluginRecord] = []
    seen: set[str] = set()
    for dist in found:
        name = name_of(dist)
        if name and name in seen:
            continue
        seen.add(name)
        try:
            points += [point for point in dist.entry_points if point.group == GROUP]
        except DAMAGED as error:
            folder = Path(str(getattr(dist, "_path", name)))
            if _names_plugins(folder):
                reason = f"{folder / 'entry_points.txt'} cannot be read: {said(error)}; install it again"
                records.append(PluginRecord(folder.stem, name, version_of(dist), "failed", reason))
    return points, records


def name_of(dist: Distribution | None) -> str:
    """As package indexes write it; "" where the metadata is damaged and has none."""
    try:
        name = dist.name if dist else None
    except DAMAGED:
        name = None
    return re.sub(r"[-_.]+", "-", name).lower() if name else ""


def version_of(dist: Distribution | None) -> str:
    """The version of a distribution, or ""."""
    try:
        return (dist.version if dist else None) or ""
    except DAMAGED:
        return ""


def _names_plugins(folder: Path) -> bool:
    """Whether the entry points that cannot be read are of nashtune; other people's are not our affair."""
    try:
        return bool(_OURS.search((folder / "entry_points.txt").read_bytes()))
    except OSError:
        return False

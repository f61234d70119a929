"""The extension points of nashtune: implement one or both in a module and name it in an entry point.

In the plugin's `pyproject.toml`:

    [project.entry-points.nashtune]
    acme = "acme_losses"

and in `acme_losses/__init__.py` (keep it light: it is imported by every command, so no torch at its top):

    from nashtune.plugins import Component, hookimpl

    @hookimpl
    def nashtune_components():
        return [Component("loss", "acme", "acme_losses.loss:AcmeLoss")]

Hooks take no arguments today. One that is added later breaks nobody: pluggy passes what an implementation names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from nashtune.plugins.component import Component, Problem

GROUP = "nashtune"
"""Entry-point group, and the name of the hook markers."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def nashtune_components() -> Iterable[Component | Problem]:
    """Components the plugin offers, by kind, name and place. Called once, when plugins are loaded."""
    raise NotImplementedError


@hookspec
def nashtune_spec_dirs() -> Iterable[Traversable]:
    """Folders with spec files, for example `[importlib.resources.files("acme_specs")]`. Called once, at loading."""
    raise NotImplementedError


HOOKS = ("nashtune_components", "nashtune_spec_dirs")

"""The methods that come with nashtune: one paper, one module. A new module here is found by itself."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from nashtune.plugins import Component, Problem, hookimpl
from nashtune.plugins.scan import scan_package


@hookimpl
def nashtune_components() -> list[Component | Problem]:
    """What each module of this package declares, read from its source so that naming a loss imports no torch."""
    return scan_package(__name__, __path__)


@hookimpl
def nashtune_spec_dirs() -> list[Traversable]:
    """The specs of these methods."""
    return [files("nashtune_specs")]

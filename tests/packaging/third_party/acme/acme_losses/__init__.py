"""A small plugin: one loss, one spec. Importing this imports no torch, so that `nashtune list` stays quick."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from nashtune.plugins import Component, hookimpl


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `acme_square`."""
    return [Component("loss", "acme_square", "acme_losses.square:SquareLoss")]


@hookimpl
def nashtune_spec_dirs() -> list[Traversable]:
    """The spec `acme`."""
    return [files("acme_specs")]

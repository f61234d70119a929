"""A plugin whose hook has a letter too few."""

from __future__ import annotations

from nashtune.plugins import Component, hookimpl


@hookimpl
def nashtune_component() -> list[Component]:
    """Never called."""
    return [Component("loss", "misspelt", "misspelt_losses:Loss")]

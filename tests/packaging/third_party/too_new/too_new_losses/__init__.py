"""A plugin written for a later plugin interface."""

from __future__ import annotations

from nashtune.plugins import Component, hookimpl


@hookimpl
def nashtune_components() -> list[Component]:
    """One loss, for interface 2."""
    return [Component("loss", "futuristic", "too_new_losses:Futuristic", api=2)]

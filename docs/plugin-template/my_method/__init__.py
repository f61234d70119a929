"""The plugin my-method: what it offers to nashtune.

Every command imports this module, so torch stays out of it.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from nashtune.plugins import Component, hookimpl


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `my_method`."""
    return [
        Component(
            kind="loss",
            name="my_method",
            target="my_method.loss:MyMethodLoss",
            api=1,
        ),
    ]


@hookimpl
def nashtune_spec_dirs() -> list[Traversable]:
    """The specs of this package, with their vectors."""
    return [files("my_method") / "specs"]

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
    """Components the plugin offers, by kind, name and place.

    Called once in each process, when plugins are loaded. A component is data: its module is imported when it is built.

    Returns:
        `Component` objects, and a `Problem` for each part of the plugin that could not be read.

    Raises:
        Exception: of any kind. The plugin has `failed` then, as with anything else in the answer, and is not used.

    Since:
        Plugin API 1.
    """
    raise NotImplementedError


@hookspec
def nashtune_spec_dirs() -> Iterable[Traversable]:
    """Folders with spec files, such as `[importlib.resources.files("acme") / "specs"]`.

    Called once in each process, after `nashtune_components`. `NAME.yaml` in such a folder is the spec NAME,
    `vectors/NAME.json` holds its vectors, `runs/NAME.yaml` is a run file that `--config NAME` finds, and
    `pipelines/NAME.yaml` a pipeline.

    Returns:
        Folders that exist, as `pathlib.Path` or from `importlib.resources`.

    Raises:
        Exception: of any kind. The plugin has `failed` then, as with an answer that is no folder, and is not used.

    Since:
        Plugin API 1.
    """
    raise NotImplementedError


HOOKS = ("nashtune_components", "nashtune_spec_dirs")

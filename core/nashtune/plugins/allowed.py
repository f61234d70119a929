"""Which modules a class path may name: importing a module runs its code, so a file may not ask for just any."""

from __future__ import annotations

from collections.abc import Sequence

from nashtune.errors import InputError, nearest
from nashtune.plugins.loading import split_target
from nashtune.plugins.manager import load_plugins
from nashtune.trust import IMPORT, grants, within


def installed() -> list[str]:
    """The core, and the modules that plugins have named in their entry points; they are imported anyway."""
    return sorted({"nashtune", *load_plugins().modules()})


def refuse_foreign(target: str, *, packages: Sequence[str] | None = None) -> None:
    """Refuse a class path outside of nashtune, of installed plugins and of what the command line allows.

    Args:
        target: "package.module:Class" or "package.module.Class".
        packages: These in place of nashtune and the plugins.

    Raises:
        InputError: it is outside of them; nothing was imported.
    """
    module, _ = split_target(target)
    prefixes = [*(installed() if packages is None else packages), *grants().imports]
    if any(within(module, prefix) for prefix in prefixes):
        return
    if packages is None and any(split_target(entry.component.target)[0] == module for entry in load_plugins().registry):
        return
    top = module.partition(".")[0]
    if packages is None:
        guess = nearest(top, [prefix.partition(".")[0] for prefix in prefixes]).partition(" (known")[0]
        what = f"{top} is neither nashtune nor an installed plugin{guess or '.'}"
    else:
        what, top = f"{module} is not among what may be named here.", module
    raise InputError(
        f"{target}: {what} It is not imported, because that runs its code. Allowed: {', '.join(prefixes)}, and what "
        f"you trust: add `{IMPORT} {top}` to the command (it cannot be said in a file){load_plugins().note()}"
    )

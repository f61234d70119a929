"""From a component's name and options to a class that is known and arguments that are checked; nothing is imported."""

from __future__ import annotations

from nashtune.errors import InputError
from nashtune.plugins import Registered, load_plugins
from nashtune.plugins.abstract import missing_functions
from nashtune.plugins.allowed import refuse_foreign
from nashtune.plugins.loading import lies_here, load_class, split_target
from nashtune.plugins.source import find_module
from nashtune.plugins.static import class_info
from nashtune.spec.draft import Draft, Path
from nashtune.spec.findings import Collector
from nashtune.spec.model import COMPONENTS, NONE, ComponentSpec
from nashtune.spec.settings import check_options


def is_class_path(name: str) -> bool:
    """Whether a component is named by its class, "pkg.module.Class" or "pkg.module:Class"."""
    return "." in name or ":" in name


def find_component(kind: str, name: str) -> tuple[str, Registered | None]:
    """(target, origin) of a registered name or class path.

    Raises:
        InputError: nobody registered the name, or the class cannot be found, implements another interface or lies in a
            package that may not be imported.
    """
    if not is_class_path(name):
        origin = load_plugins().registry.get(kind, name)
        _refuse_other_interface(kind, origin.component.target, f"{kind} '{name}' ({origin.component.target})")
        return origin.component.target, origin
    module, of_class = split_target(name)
    _refuse_missing_package(module, of_class)
    refuse_foreign(name)
    target = f"{module}:{of_class}"
    _refuse_other_interface(kind, target, name)
    return target, None


def _refuse_other_interface(kind: str, target: str, name: str) -> None:
    """Refuse a class of another kind, or an unfinished one: what its source does not show, the class itself does."""
    if class_info(target).implements(kind) and not missing_functions(target):
        return
    try:
        load_class(target, kind)
    except InputError as error:
        raise InputError(str(error).replace(target, name, 1)) from error


def _refuse_missing_package(module: str, name: str) -> None:
    """Before anything is imported: a module of no package that Python finds. Of others it is told by importing them."""
    if find_module(module.partition(".")[0]) is None:
        raise InputError(
            f"{module}:{name}: there is no module {module}{lies_here(module) or '; is its package installed?'}"
        )


GAME_SECTIONS = ("oracle", "sampler", "pairing")
LEAVE_OUT = (
    "remove the section for a method that does not read it (in a file of its own it can serve the others: --config "
    "takes several, and `nashtune compare` leaves out by itself what a method does not read)"
)
"""What to do with a section in a run file for several methods."""


def resolve_component(draft: Draft, path: Path, found: Collector) -> ComponentSpec | None:
    """One component of a draft; None when it is `none`, absent, or wrong (then `found` knows why)."""
    leaves = draft.below(*path)
    if not leaves:
        return None
    kind, dotted = COMPONENTS[path[0]], ".".join(path)
    named = leaves.pop("name", None)
    if named is None or named.value == NONE:
        for key, leaf in leaves.items():
            state = "has no name" if named is None else f"is none ({named.where})"
            names = ", ".join(load_plugins().registry.names(kind))
            other = f", or {LEAVE_OUT}" if dotted in GAME_SECTIONS else ""
            found.add(f"{leaf.where}: {dotted}.{key} is set, but {dotted} {state}; name the component ({names}){other}")
        return None
    with found.catch():
        try:
            target, origin = find_component(kind, named.value)
            info = class_info(target)
        except InputError as error:
            raise InputError(f"{named.where}: {dotted}: {error}") from error
        places = {key: leaf.where for key, leaf in leaves.items()}
        args = check_options(
            {key: leaf.value for key, leaf in leaves.items()},
            info,
            what=dotted,
            who=f"'{named.value}'",
            where=lambda key=None, *below: places.get(key, named.where),
            found=found,
        )
        return ComponentSpec(kind, named.value, target, args, origin, named.where)
    return None

"""From a component's name and options to a class that is known and arguments that are checked; nothing is imported."""

from __future__ import annotations

import ast

from nashtune.errors import InputError, nearest
from nashtune.plugins import Registered, load_plugins
from nashtune.plugins.component import KINDS
from nashtune.plugins.loading import split_target
from nashtune.plugins.source import Unreadable, read_module
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
        InputError: nobody registered the name, or the class cannot be found or implements another interface.
    """
    if not is_class_path(name):
        origin = load_plugins().registry.get(kind, name)
        return origin.component.target, origin
    target = ":".join(split_target(name))
    _refuse_missing_class(*split_target(name))
    if not class_info(target).implements(kind):
        wanted = " or ".join(interface.partition(":")[2] for interface in KINDS[kind])
        raise InputError(f"{name} is not a {kind}: it must be a subclass of {wanted}")
    return target, None


def _refuse_missing_class(module: str, name: str) -> None:
    """Refuse a misspelt class of a module whose source says all of its names; only otherwise is it worth importing."""
    try:
        source = read_module(module)
    except ModuleNotFoundError:
        raise InputError(f"{module}:{name}: there is no module {module}; is its package installed?") from None
    except (Unreadable, SyntaxError):
        return
    if name not in source.names and not source.stars and "__getattr__" not in source.names:
        classes = [known for known, node in source.names.items() if isinstance(node, ast.ClassDef)]
        raise InputError(f"module {module} has no class '{name}'{nearest(name, classes)}")


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
            found.add(f"{leaf.where}: {dotted}.{key} is set, but {dotted} {state}; name the component ({names})")
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

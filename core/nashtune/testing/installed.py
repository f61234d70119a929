"""What is installed, for `pytest.mark.parametrize`: components and specs of one plugin, or of all."""

from __future__ import annotations

from nashtune.errors import InputError, nearest
from nashtune.plugins import Registered, load_plugins
from nashtune.spec.locate import list_specs


def components_of(plugin: str | None = None) -> list[Registered]:
    """Every component that can be used, sorted by kind and name.

    Args:
        plugin: Name of the plugin, as `nashtune plugins` lists it; None for all, the core's own included.

    Raises:
        InputError: no plugin has this name, or it could not be loaded in full.
    """
    _look(plugin)
    found = [entry for entry in load_plugins().registry if plugin in (None, entry.plugin)]
    return sorted(found, key=lambda entry: (entry.component.kind, entry.component.name))


def specs_of(plugin: str | None = None) -> list[str]:
    """Names of the specs that a plugin brings, or of all; sorted.

    Raises:
        InputError: as `components_of`.
    """
    _look(plugin)
    return sorted({listed.name for listed in list_specs() if plugin in (None, listed.plugin)})


def label(component: object) -> str:
    """`loss-dpo`: the name of a test, for `ids=label`."""
    if isinstance(component, Registered):
        return f"{component.component.kind}-{component.component.name}"
    return str(getattr(component, "__name__", component))


def _look(plugin: str | None) -> None:
    """An empty list would let a test pass without having tested anything."""
    if plugin is None:
        return
    records = {record.name: record for record in load_plugins().records}
    if plugin not in records:
        raise InputError(f"no plugin is called '{plugin}'{nearest(plugin, records)}; is its package installed?")
    if records[plugin].status != "ok":
        raise InputError(f"{records[plugin].line()}; see `nashtune plugins`")

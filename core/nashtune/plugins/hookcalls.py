"""Asking one plugin for what it offers. Whatever goes wrong comes back as text; nothing is raised."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

from nashtune.errors import nearest
from nashtune.plugins.component import Component, Problem
from nashtune.plugins.hookspecs import GROUP, HOOKS
from nashtune.plugins.loading import said
from nashtune.plugins.spec_files import SpecFile, spec_files

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MOST = 10_000
"""What a hook may give; a generator without an end would hold up every command."""


@dataclass
class Offer:
    """A plugin's answer.

    Args:
        components: What it declares, not yet checked one by one.
        problems: Parts of it that could not be read.
        spec_dirs: Folders of specs.
        spec_files: What they hold.
        failure: Why nothing of it may be used, or "".
    """

    components: list[Component] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    spec_dirs: list[Traversable] = field(default_factory=list)
    spec_files: list[SpecFile] = field(default_factory=list)
    failure: str = ""


def ask(manager: pluggy.PluginManager, name: str, plugin: object) -> Offer:
    """Register a plugin object and call its hooks.

    Args:
        manager: With nashtune's hook specifications, and with no plugin: one may raise when it is compared.
        name: Of the plugin.
        plugin: Module, or any object with hook implementations.
    """
    offer = Offer()
    try:
        wrong = _unmarked(plugin)
        manager.register(plugin, name)
        if not manager.get_hookcallers(plugin):
            wrong = wrong or f"it offers nothing: no function of {getattr(plugin, '__name__', plugin)} has @hookimpl"
        wrong = wrong or _misspelt(manager, plugin)
        for item in _call(manager, "nashtune_components"):
            if isinstance(item, Component):
                offer.components.append(item.exact())
            elif isinstance(item, Problem):
                offer.problems.append(Problem(f"{item.where}", f"{item.reason}"))
            else:
                wrong = wrong or f"nashtune_components gave {item!r}; it must give Component objects"
        offer.spec_dirs = list(_call(manager, "nashtune_spec_dirs"))
        for folder in offer.spec_dirs:
            if not _is_folder(folder):
                wrong = wrong or f"nashtune_spec_dirs gave {folder!r}, which is not a folder"
        offer.spec_files = [] if wrong else [file for folder in offer.spec_dirs for file in spec_files(folder)]
        offer.failure = wrong
    except pluggy.PluginValidationError as error:
        offer.failure = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        offer.failure = said(error)
    return offer


def _call(manager: pluggy.PluginManager, hook: str) -> Iterable[Any]:
    for answer in getattr(manager.hook, hook)():
        if isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
            raise TypeError(f"{hook} gave {answer!r}; it must give a list")
        for count, item in enumerate(answer):
            if count == MOST:
                raise ValueError(f"{hook} gave more than {MOST} things; does its list ever end?")
            yield item


def _unmarked(plugin: object) -> str:
    """A function named like a hook but without the mark: pluggy would pass over it in silence."""
    for name in HOOKS:
        function = getattr(plugin, name, None)
        if function is not None and not hasattr(function, f"{GROUP}_impl"):
            return f"{name} is not marked: put @hookimpl (from nashtune.plugins) above it"
    return ""


def _misspelt(manager: pluggy.PluginManager, plugin: object) -> str:
    """What pluggy's `check_pending` looks for, with the nearest hook and the place."""
    for caller in manager.get_hookcallers(plugin) or ():
        for impl in caller.get_hookimpls():
            if impl.plugin is plugin and not caller.has_spec() and not impl.optionalhook:
                place = inspect.unwrap(impl.function).__code__
                where = f"{place.co_filename}:{place.co_firstlineno}"
                return f"{where}: '{caller.name}' is not a hook of nashtune{nearest(caller.name, HOOKS)}"
    return ""


def _is_folder(folder: object) -> bool:
    is_dir = getattr(folder, "is_dir", None)
    return bool(callable(is_dir) and hasattr(folder, "iterdir") and is_dir())

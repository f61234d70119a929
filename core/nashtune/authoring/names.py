"""The name of a new plugin in its three spellings, and whether somebody has it already."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from nashtune.errors import InputError
from nashtune.plugins import Component, load_plugins
from nashtune.plugins.source import find_module
from nashtune.spec.findings import Collector
from nashtune.spec.locate import list_specs

KIND = "loss"
"""What the template's one component is."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
BESIDE = ("docs", "tests", "dist", "runs")
"""Folders that stand beside the package, or that its git ignores."""


@dataclass(frozen=True)
class Names:
    """One name, three spellings.

    Args:
        distribution: "my-method": what is installed, and its folder.
        package: "my_method": what is imported; also the plugin, its component and its spec.
        stem: "MyMethod": what names of classes begin with.
    """

    distribution: str
    package: str
    stem: str


TEMPLATE = Names("my-method", "my_method", "MyMethod")
"""As the template spells its own."""


def spell(name: str) -> Names:
    """All spellings of a distribution's name.

    Raises:
        InputError: it is none: capitals, other characters, two hyphens, a digit at the start.
    """
    if not NAME.fullmatch(name):
        guess = _nearest(name)
        hint = f"; did you mean '{guess}'?" if guess else ""
        raise InputError(
            f"NAME: '{name}': a name is made of a-z, 0-9 and single hyphens, and begins with a letter{hint}"
        )
    words = name.split("-")
    return Names(name, "_".join(words), "".join(word.capitalize() for word in words))


def _nearest(name: str) -> str:
    """What was probably meant: `MyMethod`, `my_method` and `My method` are `my-method`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
    guess = re.sub(r"[^a-z0-9]+", "-", parted).strip("-").lstrip("0123456789-")
    return guess if NAME.fullmatch(guess) else ""


def check_free(names: Names) -> None:
    """See that nothing that is installed has one of the spellings.

    Raises:
        InputError: what has it, all of it.
    """
    found = Collector()
    taken = f"NAME: '{names.distribution}': "
    step = "; choose another name"
    plugins = load_plugins()
    problem = Component(KIND, names.package, f"{names.package}.{KIND}:{names.stem}").problem()
    if problem is not None:
        found.add(f"{taken}{problem}")
    if keyword.iskeyword(names.package):
        found.add(f"{taken}'{names.package}' is a word of Python, so no package can be called so{step}")
    elif names.package in BESIDE:
        found.add(f"{taken}the folder {names.package}/ has another use in the distribution{step}")
    else:
        module = find_module(names.package)
        if module is not None or names.package in sys.stdlib_module_names:
            where = f" ({module.origin})" if module is not None and module.origin else ""
            found.add(f"{taken}Python imports another '{names.package}' already{where}{step}")
    try:
        installed = version(names.distribution)
    except PackageNotFoundError:
        pass
    else:
        found.add(f"{taken}the distribution {names.distribution} {installed} is installed{step}")
    for record in plugins.records:
        if record.name == names.package:
            found.add(f"{taken}there is a plugin '{record.name}' ({record.dist} {record.version}){step}")
    for listed in list_specs():
        if listed.name == names.package:
            found.add(f"{taken}plugin '{listed.plugin}' has a spec '{listed.name}' ({listed.file}){step}")
    if names.package in plugins.registry.names(KIND):
        found.add(f"{taken}there is a {KIND} '{names.package}': {plugins.registry.get(KIND, names.package)}{step}")
    found.close()

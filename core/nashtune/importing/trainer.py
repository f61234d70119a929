"""Which of a tool's trainers a config is for: what the command says, or the keys that one trainer alone has."""

from __future__ import annotations

from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.importing.config import Config
from nashtune.importing.entries import Table
from nashtune.importing.method import alone, word


def trainer_of(config: Config, table: Table, named: str) -> tuple[str, str]:
    """The trainer of a config, and a note of how it was found.

    Args:
        config: The config.
        table: The tool's table.
        named: What `--trainer` says; empty where it is not given.

    Returns:
        Name and note; both empty where the table has no trainers, or where the config's loss is one that no trainer
        has; no note where the command says it.

    Raises:
        InputError: no such trainer, one whose configs are not imported, keys of two trainers, or keys that several
            trainers have, so that it is to be named.
    """
    known = table.trainers
    if named and not known:
        raise InputError(
            f"--trainer {named}: a config of {table.tool} says itself what it trains; leave the option out"
        )
    if named and named not in known:
        raise InputError(f"--trainer: {table.tool} has no trainer '{named}'{nearest(named, known)}")
    if not known:
        return "", ""
    owners = {key: name for key in config.values for name, one in known.items() if key in one.keys}
    for key, owner in owners.items():
        other = next((one for one in owners if owners[one] != (named or owner)), None)
        if other is not None:
            of = f"and --trainer says {named}" if named else f"and {key} ({config.lines[key]}) one of {owner} alone"
            raise InputError(f"{config.lines[other]}: {other} is a key of the trainer {owners[other]} alone, {of}")
    if named:
        return _imported(named, "--trainer", table), ""
    key, name, others = next(iter(owners), ""), next(iter(owners.values()), ""), []
    if not name:
        said = {key: alone(config.values[key]) for one in known.values() for key in one.says if config.values.get(key)}
        for key, value in said.items():
            found = [one for one in known if _says(table, one, key, value)]
            if not found:
                return "", ""  # no trainer's loss: that is said where the loss is looked up
            name, *others = found
    if not name:
        raise InputError(_question(config, table))
    too = f", though {' and '.join(others)} has one of that name" if others else ""
    return (
        _imported(name, f"{config.lines[key]}: {key}", table),
        f"taken for a config of the trainer {name} by {key} ({config.lines[key]}){too}; --trainer names another one",
    )


def _says(table: Table, name: str, key: str, value: Any) -> bool:
    return word(value) in [word(one) for one in table.trainers[name].says.get(key, [])]


def _imported(name: str, where: str, table: Table) -> str:
    if table.trainers[name].missing:
        raise InputError(f"{where}: the trainer {name} of {table.tool}: {table.trainers[name].missing}")
    return name


def _question(config: Config, table: Table) -> str:
    imported = [name for name, one in table.trainers.items() if not one.missing]
    return (
        f"{config.source}: several trainers of {table.tool} have all of its keys, so that it does not say which loss "
        f"is meant; name the trainer that it is for: --trainer {', '.join(imported[:-1])} or {imported[-1]} "
        f"(not imported: {', '.join(one for one in table.trainers if one not in imported)})"
    )

"""Log-prob engines: one contract, the same values and gradients."""

from __future__ import annotations

from typing import Any, Literal, get_args

from nashtune.errors import InputError, nearest
from nashtune.interfaces.policy import LogProbEngine

EngineName = Literal["auto", "shared", "packed", "tiled", "dense"]


def get_engine(name: EngineName, **options: Any) -> LogProbEngine:
    """The engine of that name; `options` are its constructor arguments.

    Raises:
        InputError: no such engine, or an option it does not have.
    """
    if name not in get_args(EngineName):
        raise InputError(f"engine: {name!r} is not an engine{nearest(name, get_args(EngineName))}")
    try:
        return _class(name)(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"engine {name!r}: {error}") from error


def _class(name: EngineName) -> type[LogProbEngine]:
    if name == "dense":
        from nashtune.logprobs.dense import DenseEngine

        return DenseEngine
    from nashtune.logprobs import packed, tiled

    engines: dict[str, type[LogProbEngine]] = {
        "tiled": tiled.TiledEngine,
        "packed": packed.PackedEngine,
        "shared": packed.SharedEngine,
        "auto": packed.AutoEngine,
    }
    return engines[name]


__all__ = ["EngineName", "get_engine"]

"""Log-prob engines: one contract, the same values and gradients."""

from __future__ import annotations

from typing import Any, Literal

from nashtune.errors import InputError, nearest
from nashtune.interfaces.policy import LogProbEngine

EngineName = Literal["tiled", "dense"]


def get_engine(name: EngineName, **options: Any) -> LogProbEngine:
    """The engine of that name; `options` are its constructor arguments.

    Raises:
        InputError: no such engine, or an option it does not have.
    """
    if name == "tiled":
        from nashtune.logprobs.tiled import TiledEngine

        engine: type[LogProbEngine] = TiledEngine
    elif name == "dense":
        from nashtune.logprobs.dense import DenseEngine

        engine = DenseEngine
    else:
        raise InputError(f"engine: {name!r} is not an engine{nearest(name, ('tiled', 'dense'))}")
    try:
        return engine(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"engine {name!r}: {error}") from error


__all__ = ["EngineName", "get_engine"]

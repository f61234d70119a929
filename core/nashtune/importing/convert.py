"""Conversions of single values, by the names that mapping tables use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nashtune.data.sources import FORMATS, SUFFIXES

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class NoCounterpart(Exception):
    """A value that cannot be said here; the text says why, and what to do instead."""


def model(value: Any, other: Any) -> Any:
    """A model's folder as it is, and a name such as `owner/name` as `hub:owner/name`."""
    return f"hub:{value}" if _HUB_NAME.fullmatch(str(value)) and not Path(str(value)).exists() else value


def one_model(value: Any, other: Any) -> Any:
    """As `model`, of a key that may also name several, one upon the other, in a list or with commas."""
    names = value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
    if len(names) != 1:
        raise NoCounterpart(
            f"{len(names)} adapters, one upon the other; merge all but the last into the weights (with a fresh adapter "
            "on top, all of them) and name one folder"
        )
    return model(names[0], other)


def rows(value: Any, other: Any) -> Any:
    """A file of rows as it is, and the name of a data set as `hub:owner/name:split`; `other` is the split."""
    text = str(value)
    if text.endswith(SUFFIXES):
        return text
    if _HUB_NAME.fullmatch(text) and not Path(text).exists():
        return f"hub:{text}:{other}" if other else f"hub:{text}"
    raise NoCounterpart(f"rows come from one {FORMATS} file or a data set by name (owner/name); convert {text}")


def rows_by_name(value: Any, other: Any) -> Any:
    """A data set that the tool knows by a name of its own, as the file `NAME.jsonl` that its rows are to be put in."""
    names = value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
    if len(names) != 1:
        raise NoCounterpart("several data sets; put their rows into one file and name that")
    return f"{names[0]}.jsonl"


def mixer(value: Any, other: Any) -> Any:
    """The one data set of a mixture with the split to train on; `other` has the splits."""
    name, split = _mixed(value), next((one for one in other or ["train"] if "train" in str(one)), "train")
    return rows(name, split)


def mixer_held_out(value: Any, other: Any) -> Any:
    """The split to measure on, of the one data set of the mixture `other`; nothing where there is none."""
    split = next((one for one in value or [] if "test" in str(one)), None)
    try:
        return rows(_mixed(other), split) if split else None
    except NoCounterpart:
        return None  # said of the mixture already


def _mixed(mixture: Any) -> str:
    parts = mixture if isinstance(mixture, Mapping) else {}
    if len(parts) != 1 or any(float(share) != 1 for share in parts.values()):
        raise NoCounterpart(
            "several data sets, or a share of one; put the rows into one file and name that in data.train"
        )
    return str(next(iter(parts)))


def whole(value: Any, other: Any) -> Any:
    """A number of epochs, which is whole here."""
    if float(value) != int(value):
        raise NoCounterpart("epochs are whole numbers here; give the number of steps instead, with trainer.max_steps")
    return int(value)


def steps(value: Any, other: Any) -> Any:
    """A number of optimiser steps as one of micro-batches; `other` micro-batches make a step."""
    if float(value) < 1:
        raise NoCounterpart("a share of the run; give the number of optimiser steps")
    return int(value) * int(other or 1)


def ratio(value: Any, other: Any) -> Any:
    """A share of the run, below 1."""
    if float(value) >= 1:
        raise NoCounterpart("a share of 1 or more; from 1 on a warm-up is a number of steps here: give warmup_steps")
    return value


def saves(value: Any, other: Any) -> Any:
    """Optimiser steps between checkpoints; nothing where it is a share of the run, as checkpoints change no number."""
    return int(value) if float(value) >= 1 else None


def share(value: Any, other: Any) -> Any:
    """Evaluations in an epoch as the share of an epoch between two."""
    if not isinstance(value, int) or value < 1:
        raise NoCounterpart("give a whole number from 1")
    return 1.0 / value


def layers(value: Any, other: Any) -> Any:
    """Layers that get an adapter: a list, a text with commas, or the tool's word for all linear ones."""
    names = value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
    return "all-linear" if names in (["all"], ["all-linear"], ["all_linear"]) else names


def limit(value: Any, other: Any) -> Any:
    """A greatest length, which there always is here."""
    if not value:
        raise NoCounterpart("no limit; give the longest row in tokens, which there always is here")
    return value


def split_of(value: Any, other: Any) -> Any:
    """A split of the data set `other`; nothing where that is no data set, which is said of it already."""
    if str(other).endswith(SUFFIXES):
        if value == "train":
            return str(other)
        raise NoCounterpart(f"a split of {other}; name the file with the held-out rows in data.validation")
    try:
        return rows(other, value)
    except NoCounterpart:
        return None


def divided(value: Any, other: Any) -> Any:
    """The value divided by `other`."""
    return float(value) / float(other)


def twice(value: Any, other: Any) -> Any:
    """The value, and where there is none two times `other`."""
    return value if value else 2.0 * float(other)


CONVERSIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    function.__name__: function
    for function in (
        model,
        one_model,
        rows,
        rows_by_name,
        split_of,
        mixer,
        mixer_held_out,
        whole,
        steps,
        ratio,
        saves,
        share,
        layers,
        limit,
        divided,
        twice,
    )
}
"""Name -> function of the value and of the value of the entry's `using`."""

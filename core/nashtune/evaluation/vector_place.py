"""Where the conformance vectors of a spec lie: beside its file, or beside its base, where the loss is the base's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nashtune.errors import InputError
from nashtune.spec.resolve import base_file, resolve

if TYPE_CHECKING:
    from nashtune.spec.model import Spec

FOLDER = "vectors"
"""Folder of vector files beside the specs: vectors/NAME.json."""


@dataclass(frozen=True)
class Place:
    """Vectors that hold for a spec.

    Args:
        file: The vector file; it may not be there.
        spec: What its cases are run with: the spec, or its base.
        lent: What is said where they are the base's; "" where they are the spec's own.
    """

    file: Path
    spec: Spec
    lent: str


def vectors_of(spec: Spec) -> Place:
    """The vectors beside a spec, or those of its base where it has none and the loss is the base's.

    Raises:
        InputError: neither holds.
    """
    own = _beside(Path(spec.file))
    if own.is_file():
        return Place(own, spec, "")
    found = base_file(Path(spec.file))
    if found is None:
        raise InputError(f"there is no {own}, and it has no base")
    base = resolve(found)
    if changed := _differs(spec, base):
        raise InputError(f"there is no {own}, and the loss is not the one of its base '{base.name}': {changed}")
    theirs = _beside(Path(base.file))
    if not theirs.is_file():
        raise InputError(f"there is no {own}, and its base '{base.name}' has no {theirs}")
    lent = f"no vectors of its own; the loss is that of its base '{base.name}', whose are run"
    if (spec.kl and spec.kl.target) != (base.kl and base.kl.target):
        lent += "; of its kl, which is another one, they say nothing"
    elif spec.kl and base.kl and spec.kl.args != base.kl.args:
        lent += "; of its kl, which has other options, they say nothing"
    return Place(theirs, base, lent)


def _differs(spec: Spec, base: Spec) -> str:
    """How the loss of a spec is another one than its base's; "" where it is the same."""
    if spec.loss.target != base.loss.target:
        return f"{spec.loss.name}, and there {base.loss.name}"
    names = sorted({*spec.loss.args, *base.loss.args})
    other = [name for name in names if spec.loss.args.get(name) != base.loss.args.get(name)]
    return ", ".join(
        f"loss.{name} is {spec.loss.args.get(name)}, and there {base.loss.args.get(name)}" for name in other
    )


def _beside(file: Path) -> Path:
    return file.parent / FOLDER / f"{file.stem}.json"

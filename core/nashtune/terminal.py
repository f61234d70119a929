"""A progress bar over batches, on standard error and on one rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from nashtune.ranks import rank

Item = TypeVar("Item")


def with_bar(items: Iterable[Item], description: str) -> Iterator[Item]:
    """The items, with a bar while they are gone through."""
    yield from track(
        items,
        description=description,
        total=len(items) if isinstance(items, Sized) else None,
        console=Console(stderr=True),
        disable=rank() != 0,
        transient=True,
    )

"""A batch as columns: numbers per row and numbers per item of a row, so that rows can be picked, mixed and changed.

An item is what a row has several of: a token of a rollout, a completion of a ranked list. Rows of pairs and of single
examples have none.

Legend: B = rows, M = items of all rows, one row after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """A batch.

    Args:
        rows: One number per row (B,), or several (B, K), by name.
        items: One number per item (M,), or several (M, K), by name.
        sizes: Items of each row (B,); None where rows have none.
        beta: A scalar, (B,) or (B, 2); None where there is none.
    """

    rows: dict[str, Tensor]
    items: dict[str, Tensor] = field(default_factory=dict)
    sizes: Tensor | None = None
    beta: Tensor | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.sizes) if self.sizes is not None else len(next(iter(self.rows.values())))

    def __contains__(self, name: str) -> bool:
        return name in self.rows or name in self.items

    def __getitem__(self, name: str) -> Tensor:
        return self.rows[name] if name in self.rows else self.items[name]

    def get(self, name: str) -> Tensor | None:
        """A column, or None."""
        return self[name] if name in self else None

    def put(self, **columns: Tensor) -> Columns:
        """With other values of columns that are there."""
        rows = {name: columns.get(name, value) for name, value in self.rows.items()}
        items = {name: columns.get(name, value) for name, value in self.items.items()}
        return replace(self, rows=rows, items=items)

    def add(self, *, rows: dict[str, Tensor] | None = None, items: dict[str, Tensor] | None = None) -> Columns:
        """With further columns."""
        return replace(self, rows={**self.rows, **(rows or {})}, items={**self.items, **(items or {})})

    def without(self, *names: str) -> Columns:
        """Without some columns."""
        rows = {name: value for name, value in self.rows.items() if name not in names}
        return replace(self, rows=rows, items={name: value for name, value in self.items.items() if name not in names})

    def to(self, dtype: torch.dtype) -> Columns:
        """In another precision; numbers that are no fractions stay as they are."""
        return self._each(lambda value: value.to(dtype) if value.is_floating_point() else value)

    def clone(self) -> Columns:
        """A copy that shares no memory."""
        return self._each(Tensor.clone)

    def pick(self, index: Sequence[int]) -> Columns:
        """Some of the rows, in this order, with their items."""
        chosen = torch.tensor(list(index))
        beta = self.beta if self.beta is None or self.beta.ndim == 0 else self.beta[chosen]
        rows = {name: value[chosen] for name, value in self.rows.items()}
        if self.sizes is None:
            return replace(self, rows=rows, beta=beta)
        places = self.places(index)
        items = {name: value[places] for name, value in self.items.items()}
        return replace(self, rows=rows, items=items, sizes=self.sizes[chosen], beta=beta)

    def places(self, index: Sequence[int]) -> Tensor:
        """Where the items of some rows are."""
        assert self.sizes is not None, "rows without items"
        starts = self.sizes.cumsum(0) - self.sizes
        return torch.cat([torch.arange(int(self.sizes[i])) + starts[i] for i in index])

    def same(self, other: Columns) -> bool:
        """Whether every number is the same."""
        mine, its = ({**one.rows, **one.items} for one in (self, other))
        return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Columns:
        return replace(
            self,
            rows={name: change(value) for name, value in self.rows.items()},
            items={name: change(value) for name, value in self.items.items()},
            beta=None if self.beta is None else change(self.beta),
        )

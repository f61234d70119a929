"""Keys and values of the rows being decoded, in memory that is reserved once.

transformers' own cache is copied as a whole for every token that is added to it, and again to drop a row.

Legend: U = prompts, R = rows, K = key-value heads, T = positions, D = head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer


class ReservedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """Full attention of one layer. After `spread`, a new token is written in place, and a row that ends is overwritten.

    `keys` and `values` (R, K, T, D) are views of what is reserved.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reserved: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones included. Before `spread` only the prompts' pass is taken."""
        key_states, value_states = _as_read(key_states), _as_read(value_states)
        if self._reserved is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys, self.values, self.is_initialized = key_states, value_states, True
            return key_states, value_states
        rows, start = self.keys.shape[0], self.keys.shape[2]
        end = start + key_states.shape[2]
        keys, values = self._reserved
        keys[:rows, :, start:end] = key_states
        values[:rows, :, start:end] = value_states
        self.keys, self.values = keys[:rows, :, :end], values[:rows, :, :end]
        return self.keys, self.values

    def spread(self, rows_R: Tensor, room: int) -> None:
        """Row r continues what row `rows_R[r]` has so far; `room` positions are reserved for each."""
        old = (self.keys, self.values)
        self._reserved = tuple(  # type: ignore[assignment]
            part.new_empty((len(rows_R), part.shape[1], room, part.shape[3])) for part in old
        )
        self._view(len(rows_R), self.keys.shape[2])
        for new, part in zip((self.keys, self.values), old, strict=True):
            new.copy_(part[rows_R])

    def keep(self, order: Sequence[int]) -> None:
        """Row r is what was row `order[r]`; only rows that change their place are copied.

        No row that moves may stand in the place of another one that does, as `batching.compacted` makes it.
        """
        moved = [(to, source) for to, source in enumerate(order) if to != source]
        for part in (self.keys, self.values):
            for to, source in moved:
                part[to] = part[source]
        self._view(len(order), self.keys.shape[2])

    def _view(self, rows: int, length: int) -> None:
        assert self._reserved is not None
        self.keys, self.values = (part[:rows, :, :length] for part in self._reserved)


def _as_read(states: Tensor) -> Tensor:
    """In autocast's dtype where it is on: attention reads them so, and would cast all of them at every token."""
    device = states.device.type
    if states.dtype == torch.float32 and torch.is_autocast_enabled(device):
        return states.to(torch.get_autocast_dtype(device))
    return states


class RowCache(DynamicCache):  # type: ignore[misc]  # transformers is untyped here
    """Cache of a model whose layers attend to everything, or to a sliding window, or take what another layer keeps.

    A layer with a window keeps transformers' own cache, which never holds more than the window.

    Args:
        config: The model's.

    Raises:
        TypeError: a layer keeps something else, such as a recurrent state.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        for place, layer in enumerate(self.layers):
            # exact types: a subclass keeps more than keys and values
            if type(layer) is DynamicLayer:
                self.layers[place] = ReservedLayer()
            elif type(layer) not in (DynamicSlidingWindowLayer, DummyLayer):
                raise TypeError(f"layer {place} keeps a {type(layer).__name__}")

    def spread(self, rows_R: Tensor, room: int) -> None:
        """Row r continues what row `rows_R[r]` has so far; up to `room` positions will be used."""
        for layer in self.layers:
            if isinstance(layer, ReservedLayer):
                layer.spread(rows_R, room)
            else:
                layer.batch_select_indices(rows_R)

    def keep(self, order: Sequence[int], device: torch.device) -> None:
        """Row r is what was row `order[r]`, see `ReservedLayer.keep`."""
        order_R = torch.tensor(order, device=device)
        for layer in self.layers:
            if isinstance(layer, ReservedLayer):
                layer.keep(order)
            else:
                layer.batch_select_indices(order_R)

"""What the bytes of a finished file hold. Their sha256 is right: what is wrong with them was altered with care."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from torch import Tensor


def columns_of(data: bytes, types: Mapping[str, Any] | None, rows: object) -> dict[str, list[Any]]:
    """The columns of a table.

    Args:
        data: A parquet file.
        types: The columns that it must have, and their types; None takes any.
        rows: How many it must have; None where that is not known.

    Raises:
        ValueError: it is no such table.
    """
    try:
        source = pq.ParquetFile(pa.BufferReader(data))
        schema, count = source.schema_arrow, source.metadata.num_rows
        found = dict(zip(schema.names, schema.types, strict=True))
        if len(found) < len(schema.names) or (types is not None and found != dict(types)):
            raise ValueError(f"its columns are {', '.join(f'{field.name} ({field.type})' for field in schema)}")
        _compare(count, rows)  # before it is read: a few bytes may say a million equal rows
        columns: dict[str, list[Any]] = source.read().to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise ValueError("it cannot be read") from error
    return columns


def tensors_of(data: bytes, rows: object) -> dict[str, Tensor]:
    """Tensors, on the CPU; `rows` as in `columns_of`.

    Raises:
        SafetensorError: the bytes hold no tensors.
        ValueError: they have another number of rows.
    """
    from safetensors.torch import load

    tensors: dict[str, Tensor] = load(data)
    _compare(rows_of(tensors), rows)
    return tensors


def rows_of(tensors: Mapping[str, Tensor]) -> int:
    """The length of the longest of some tensors."""
    return max((tensor.shape[0] for tensor in tensors.values() if tensor.dim()), default=0)


def _compare(count: int, rows: object) -> None:
    if rows not in (None, count):
        raise ValueError(f"it has {count} rows, and its manifest says {rows}")

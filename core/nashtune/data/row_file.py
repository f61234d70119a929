"""Token rows in one Arrow file that is mapped into memory: rows are read from it as they are asked for.

What is known of the rows stands at the end of the file, so that there is one file, which is whole or of no use. Columns
are made of buffers and read as buffers: pyarrow's conversions from and to Python values import pandas where it is
installed, which costs 30 MB and more time than opening the file.
"""

from __future__ import annotations

import json
import math
import mmap
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nashtune.data.tokenise import TokenRow

IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "prompt_ids": IDS,
        "completions": pa.list_(IDS),
        "levels": IDS,  # empty: none
        "p_chosen": pa.float64(),  # NaN: none
        "margin": pa.float64(),  # NaN: none
        "desirable": pa.int8(),  # -1: none
        "place": pa.binary(),  # `where` behind the source's name: the file may be given by another path next time
        "prompt_text": pa.binary(),  # UTF-8 with surrogates: JSON can hold half of a pair
    }
)
FACTS = b"facts"
ROWS, TOKENS = 1024, 1 << 20  # of a record batch, at most (one row may have more tokens)
RELEASE = 32  # rows read between two releases of the pages they are in


class RowWriter:
    """Writes rows to a new file; to be used in a `with` block, and finished by `close_with`.

    Args:
        path: The file.
        source: What stands at the beginning of each row's `where`.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._source = source
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)
        self._waiting: list[TokenRow] = []
        self._tokens = 0
        self._starts = [0]

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()
        self._sink.close()

    def add(self, rows: Sequence[TokenRow]) -> None:
        """The next rows."""
        for row in rows:
            self._waiting.append(row)
            self._tokens += len(row.prompt_ids) + sum(map(len, row.completions))
            if len(self._waiting) == ROWS or self._tokens >= TOKENS:
                self._flush()

    def close_with(self, facts: Mapping[str, Any]) -> None:
        """The end of the rows, and what is known of them, as JSON has it."""
        if self._waiting:
            self._flush()
        text = json.dumps({"facts": facts, "starts": self._starts})
        self._writer.write_batch(_to_batch([], self._source), custom_metadata={FACTS: text})

    def _flush(self) -> None:
        self._writer.write_batch(_to_batch(self._waiting, self._source))
        self._starts.append(self._starts[-1] + len(self._waiting))
        self._waiting, self._tokens = [], 0


def _to_batch(rows: Sequence[TokenRow], source: str) -> pa.RecordBatch:
    lists = _lists([ids for row in rows for ids in row.completions])
    columns = [
        _lists([row.prompt_ids for row in rows]),
        pa.Array.from_buffers(SCHEMA.field(1).type, len(rows), [None, _ends(rows)], children=[lists]),
        _lists([row.levels or () for row in rows]),
        _numbers(pa.float64(), "d", [math.nan if row.p_chosen is None else row.p_chosen for row in rows]),
        _numbers(pa.float64(), "d", [math.nan if row.margin is None else row.margin for row in rows]),
        _numbers(pa.int8(), "b", [-1 if row.desirable is None else int(row.desirable) for row in rows]),
        _texts([row.where.removeprefix(source) for row in rows]),
        _texts([row.prompt_text for row in rows]),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _numbers(kind: Any, code: str, values: Iterable[float]) -> pa.Array:
    packed = array(code, values)
    return pa.Array.from_buffers(kind, len(packed), [None, pa.py_buffer(packed)])


def _offsets(lengths: Iterable[int]) -> pa.Buffer:
    return pa.py_buffer(array("i", accumulate(lengths, initial=0)))


def _ends(rows: Sequence[TokenRow]) -> pa.Buffer:
    return _offsets(len(row.completions) for row in rows)


def _lists(lists: Sequence[Sequence[int]]) -> pa.Array:
    values = _numbers(pa.int32(), "i", chain.from_iterable(lists))
    return pa.Array.from_buffers(IDS, len(lists), [None, _offsets(map(len, lists))], children=[values])


def _texts(texts: Sequence[str]) -> pa.Array:
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    return pa.Array.from_buffers(pa.binary(), len(raw), [None, _offsets(map(len, raw)), pa.py_buffer(b"".join(raw))])


class TokenRows(Sequence[TokenRow]):
    """The rows of a file, as if they were a list.

    Args:
        path: What a `RowWriter` has written.
        source: What to put at the beginning of each row's `where`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a file (`pyarrow.ArrowInvalid` is a ValueError).
        KeyError: neither.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        with path.open("rb") as stream:
            self._mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._mapped)))
        if self._reader.schema != SCHEMA:
            raise ValueError("its columns are others")
        last = self._reader.get_batch_with_custom_metadata(self._reader.num_record_batches - 1)
        found = json.loads(last.custom_metadata[FACTS])
        self.facts: Mapping[str, Any] = found["facts"]
        self._starts: list[int] = found["starts"]
        self._batches: dict[int, _Batch] = {}
        self._read = 0

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping cannot be pickled; another process makes its own
        return TokenRows, (self._path, self._source)

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[TokenRow]: ...

    def __getitem__(self, index: int | slice) -> TokenRow | list[TokenRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        self._release()
        number = bisect_right(self._starts, row) - 1
        if number not in self._batches:
            self._batches[number] = _Batch(self._reader.get_batch(number))
        return self._batches[number].row(row - self._starts[number], self._source)

    def __iter__(self) -> Iterator[TokenRow]:
        return (self[row] for row in range(len(self)))

    def _release(self) -> None:
        """Now and then give back the pages that were read: they stay in the system's cache, and not in this process."""
        self._read += 1
        if self._read % RELEASE == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


class _Batch:
    """The columns of a record batch as NumPy arrays over the mapped file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        _, at, _, ids = batch.column("prompt_ids").buffers()
        self._prompt_at, self._prompts = _ints(at), _ints(ids)
        _, lists, _, at, _, ids = batch.column("completions").buffers()
        self._list_at, self._completion_at, self._completions = _ints(lists), _ints(at), _ints(ids)
        _, at, _, levels = batch.column("levels").buffers()
        self._level_at, self._levels = _ints(at), _ints(levels)
        self._p_chosen, self._margin = (
            np.frombuffer(batch.column(name).buffers()[1], np.float64) for name in ("p_chosen", "margin")
        )
        self._desirable = np.frombuffer(batch.column("desirable").buffers()[1], np.int8)
        (_, at, self._places), (_, text_at, self._texts) = (
            batch.column(name).buffers() for name in ("place", "prompt_text")
        )
        self._place_at, self._text_at = _ints(at), _ints(text_at)

    def row(self, i: int, source: str) -> TokenRow:
        ends = self._completion_at[self._list_at[i] : self._list_at[i + 1] + 1].tolist()
        p_chosen, margin, desirable = float(self._p_chosen[i]), float(self._margin[i]), int(self._desirable[i])
        return TokenRow(
            prompt_ids=_part(self._prompts, self._prompt_at, i),
            completions=tuple(tuple(self._completions[a:b].tolist()) for a, b in pairwise(ends)),
            p_chosen=None if math.isnan(p_chosen) else p_chosen,
            margin=None if math.isnan(margin) else margin,
            desirable=None if desirable < 0 else bool(desirable),
            levels=_part(self._levels, self._level_at, i) or None,
            where=source + _text(self._places, self._place_at, i),
            prompt_text=_text(self._texts, self._text_at, i),
        )


def _ints(buffer: pa.Buffer) -> NDArray[np.int32]:
    return np.frombuffer(buffer, np.int32)


def _part(values: NDArray[np.int32], at: NDArray[np.int32], i: int) -> tuple[int, ...]:
    return tuple(values[at[i] : at[i + 1]].tolist())


def _text(data: pa.Buffer, at: NDArray[np.int32], i: int) -> str:
    first, last = int(at[i]), int(at[i + 1])
    return bytes(data.slice(first, last - first)).decode("utf-8", "surrogatepass")

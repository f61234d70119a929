"""Sums by the content of a sequence, in sorted arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nashtune.errors import InputError
from nashtune.references.cache_files import PartFiles, read, write
from nashtune.references.store import Sums, from_tensors, no_sums, to_tensors

EDGES = [bytes(16), bytes(15) + b"\1", b"\1" + bytes(15), b"\x7f" * 16, b"\x80" * 16, b"\xff" * 16, b"a" + bytes(15)]
"""Digests with zero bytes at either end and with bytes beyond the signed range."""


def numbers(count: int, seed: int = 0) -> tuple[list[bytes], dict[bytes, tuple[float, int]]]:
    draw = np.random.default_rng(seed)
    names = [*EDGES, *(draw.bytes(16) for _ in range(count))]
    return names, {name: (float(draw.normal()), int(draw.integers(1, 99))) for name in names}


def table(entries: dict[bytes, tuple[float, int]]) -> Sums:
    return Sums.of(
        list(entries), np.array([v for v, _ in entries.values()]), np.array([n for _, n in entries.values()])
    )


def test_every_digest_is_found_and_no_other() -> None:
    names, entries = numbers(500)
    sums = table(entries)
    assert sums == entries and list(sums) == sorted(names)
    there, place = sums.find(names)
    assert there.all() and [float(sums.sums[i]) for i in place] == [entries[name][0] for name in names]
    others, _ = numbers(300, seed=1)
    assert sums.find(others)[0].tolist() == [name in entries for name in others]
    with pytest.raises(KeyError):
        sums[b"b" + bytes(15)]


def test_merging_keeps_what_was_there_first() -> None:
    _, first = numbers(50)
    _, second = numbers(70, seed=1)  # the edges are in both
    assert table(first).merged(table(second)) == second | first
    assert no_sums().merged(table(first)) == first == table(first).merged(no_sums())
    assert len(no_sums().find(EDGES)[0]) == len(EDGES) and not no_sums().find(EDGES)[0].any()


def test_tensors_and_back() -> None:
    _, entries = numbers(20)
    assert from_tensors(to_tensors(table(entries))) == entries
    wrong = to_tensors(table(entries)) | {"sums": torch.zeros(3)}
    with pytest.raises(ValueError, match="different lengths"):
        from_tensors(wrong)


def test_a_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    """A million sequences cost the process no memory of its own."""
    count = 1_000_000
    draw = np.random.default_rng(0)
    names = np.frombuffer(draw.bytes(16 * count), dtype="S16")
    sums = Sums.of(names.tolist(), draw.normal(size=count).astype(np.float32), np.ones(count, dtype=np.int32))
    file = tmp_path / "sums.safetensors"
    write(file, sums, {"made": "here"})

    def own() -> int:
        """KiB of memory that belongs to this process alone; pages of a mapped file are the system's."""
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous"))

    before = own()
    mapped = read(file, {"made": "here"})
    wanted = [names[i].ljust(16, b"\0") for i in range(0, count, 50_000)]
    there, place = mapped.find(wanted)
    grown = own() - before
    assert there.all() and np.array_equal(mapped.sums[place], sums.sums[sums.find(wanted)[1]])
    assert file.stat().st_size > 24_000_000 and grown < 8_000  # memory may come in huge pages of 2 MiB
    with pytest.raises(InputError, match="another made; delete it"):
        read(file, {"made": "there"})


def test_parts_of_several_processes_are_read_together(tmp_path: Path) -> None:
    file, parts = tmp_path / "key.safetensors", {"model": "x"}
    _, entries = numbers(9)
    names = list(entries)
    kept = PartFiles(file, parts)
    for picked in (names[:5], names[5:9], names[7:], names[:2]):  # no part is written over another
        PartFiles(file, parts).keep(table({name: entries[name] for name in picked}))
    assert len(list(tmp_path.glob("key.*.part"))) == 4
    assert kept.read(torch.float64) == entries
    (tmp_path / "other.0of1-000000.part").write_bytes(b"of another file")
    kept.remove()
    assert [left.name for left in tmp_path.iterdir()] == ["other.0of1-000000.part"]


def test_a_part_that_another_run_removes_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = PartFiles(tmp_path / "key.safetensors", {})
    _, entries = numbers(3)
    kept.keep(table(entries))
    there = kept._all()
    monkeypatch.setattr(kept, "_all", lambda: [*there, tmp_path / "key.0of1-000001.part"])
    assert kept.read(torch.float64) == entries
    there[0].write_bytes(b"broken")
    with pytest.raises(InputError, match="broken"):
        kept.read(torch.float64)

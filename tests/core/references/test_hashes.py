"""sha256 of model files, kept by their state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nashtune.references import hashes
from nashtune.references.hashes import digest_of


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    original = hashes.sha256_of

    def count(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(hashes, "sha256_of", count)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old at once."""
    monkeypatch.setattr(hashes, "SETTLED", -1.0)


def test_a_file_is_read_once_for_each_state(tmp_path: Path, read: list[str], settled: None) -> None:
    weights, kept = tmp_path / "model.safetensors", tmp_path / "hashes"
    weights.write_bytes(b"one")
    first = digest_of([weights], kept)
    assert digest_of([weights], kept) == first and read == ["model.safetensors"]
    times = weights.stat()
    weights.write_bytes(b"two")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as long, and as old as it says
    second = digest_of([weights], kept)
    assert second != first and len(read) == 2
    assert digest_of([weights], kept) == second and len(read) == 2


def test_a_file_that_is_just_written_is_not_remembered(tmp_path: Path, read: list[str]) -> None:
    """It may change once more within one tick of the file system's clock."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    digest_of([weights], tmp_path / "hashes")
    digest_of([weights], tmp_path / "hashes")
    assert len(read) == 2 and not (tmp_path / "hashes").exists()


def test_a_link_is_what_it_points_to(tmp_path: Path, settled: None) -> None:
    """The hub's cache links names to contents; a link that is set anew is another file."""
    for content in ("one", "two"):
        (tmp_path / content).write_text(content)
    link = tmp_path / "model.safetensors"
    found = []
    for content in ("one", "two", "one"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / content)
        found.append(digest_of([link], tmp_path / "hashes"))
    assert found[0] == found[2] != found[1]


def test_names_and_contents_both_count(tmp_path: Path) -> None:
    for folder, names in (("a", "xy"), ("b", "xy"), ("c", "yx"), ("d", "xz")):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, ("1", "2"), strict=True):
            (tmp_path / folder / name).write_text(content)
    found = [digest_of(sorted((tmp_path / folder).iterdir()), tmp_path / "hashes") for folder in "abcd"]
    assert found[0] == found[1] and len(set(found)) == 3


def test_a_broken_note_is_made_again(tmp_path: Path, read: list[str], settled: None) -> None:
    weights, kept = tmp_path / "model.safetensors", tmp_path / "hashes"
    weights.write_bytes(b"one")
    first = digest_of([weights], kept)
    for broken in ("", "[]", '{"state": 1}'):
        next(kept.iterdir()).write_text(broken)
        assert digest_of([weights], kept) == first
    assert len(read) == 4

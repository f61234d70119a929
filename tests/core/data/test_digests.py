from __future__ import annotations

import hashlib
import time

import pytest

from lab import set_back
from nashtune.data import digests
from nashtune.data.digests import forget, known_sha256


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def reads(monkeypatch):
    """Files whose content was read."""
    seen = []
    monkeypatch.setattr(digests, "sha256_of", lambda path: (seen.append(path.name), sha256(path.read_bytes()))[1])
    return seen


@pytest.fixture
def settled(monkeypatch) -> None:
    """Time has passed since the files were written."""
    now = time.time
    monkeypatch.setattr(digests.time, "time", lambda: now() + 60)


def test_a_file_is_read_once(tmp_path, reads, settled) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert {known_sha256(path) for _ in range(3)} == {sha256(b"one")}
    assert reads == ["a"]


def test_a_change_is_seen_even_where_size_and_time_are_put_back(tmp_path, reads, settled) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    known_sha256(path)
    before = path.stat()
    path.write_bytes(b"two")
    set_back(path, before)
    assert known_sha256(path) == sha256(b"two")
    other = tmp_path / "b"
    other.write_bytes(b"six")
    other.replace(path)
    assert known_sha256(path) == sha256(b"six")
    assert reads == ["a", "a", "a"]


def test_a_file_that_was_just_written_is_not_trusted_yet(tmp_path, reads, monkeypatch) -> None:
    """Within the resolution of time stamps it may be written again and look the same."""
    path = tmp_path / "a"
    path.write_bytes(b"one")
    written = path.stat().st_mtime
    monkeypatch.setattr(digests.time, "time", lambda: written + 1)  # whatever else the machine does in between
    known_sha256(path)
    known_sha256(path)
    assert reads == ["a", "a"]


def test_a_broken_memory_is_made_again(tmp_path, own_cache, reads, settled) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    known_sha256(path)
    (memory,) = (own_cache / "digests").iterdir()
    for content in ("", "[]", '{"stamp": 1}'):
        memory.write_text(content)
        assert known_sha256(path) == sha256(b"one")
    assert len(reads) == 4


def test_what_is_forgotten_is_read_again(tmp_path, own_cache, reads, settled) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    known_sha256(path)
    path.unlink()
    forget(path)
    forget(path)
    assert not list((own_cache / "digests").iterdir())

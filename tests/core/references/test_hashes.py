"""sha256 of model files, remembered by their state."""

from __future__ import annotations

import os
import time
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from killing import SERVER
from lab import set_back
from nashtune.data import digests
from nashtune.references.hashes import digest_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of each test."""
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    original = digests.sha256_of

    def count(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(digests, "sha256_of", count)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old at once."""
    monkeypatch.setattr(digests, "SETTLED", -1.0)


def test_a_file_is_read_once_for_each_state(tmp_path: Path, read: list[str], settled: None) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first = digest_of([weights])
    assert digest_of([weights]) == first and read == ["model.safetensors"]
    times = weights.stat()
    weights.write_bytes(b"two")
    set_back(weights, times)  # as long, and as old as it says
    second = digest_of([weights])
    assert second != first and len(read) == 2
    assert digest_of([weights]) == second and len(read) == 2


def test_a_link_is_what_it_points_to(tmp_path: Path, settled: None) -> None:
    """The hub's cache links names to contents; a link that is set anew is another file."""
    for content in ("one", "two"):
        (tmp_path / content).write_text(content)
    link = tmp_path / "model.safetensors"
    found = []
    for content in ("one", "two", "one"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / content)
        found.append(digest_of([link]))
    assert found[0] == found[2] != found[1]


def test_names_and_contents_both_count(tmp_path: Path) -> None:
    for folder, names in (("a", "xy"), ("b", "xy"), ("c", "yx"), ("d", "xz")):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, ("1", "2"), strict=True):
            (tmp_path / folder / name).write_text(content)
    found = [digest_of(sorted((tmp_path / folder).iterdir())) for folder in "abcd"]
    assert found[0] == found[1] and len(set(found)) == 3


def _many(cache: str, weights: list[str], start: float) -> set[str]:
    os.environ["NASHTUNE_CACHE"] = cache
    digests.SETTLED = -1.0
    time.sleep(max(0.0, start - time.time()))
    found = set()
    for _ in range(100):
        found.add(digest_of([Path(one) for one in weights]))
        for memory in Path(cache).glob("digests/*.json"):
            memory.unlink(missing_ok=True)  # so that all of them write it again and again
    return found


def test_several_processes_may_write_and_read_at_once(tmp_path: Path, cache: Path) -> None:
    weights = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for one in weights:
        one.write_bytes(one.name.encode() * 100)
    asked = (str(cache), [str(one) for one in weights], time.time() + 1)
    with Pool(4, context=SERVER) as pool:
        found = pool.starmap(_many, [asked] * 4)
    assert found == [{digest_of(weights)}] * 4
    assert not list(cache.rglob("*.partial"))


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError, OSError])
def test_a_folder_that_cannot_be_written_to_costs_time_alone(
    tmp_path: Path, cache: Path, read: list[str], settled: None, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error("no")

    monkeypatch.setattr("nashtune.files.Path.mkdir", refuse)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    assert digest_of([weights]) == digest_of([weights])
    assert len(read) == 2 and not cache.exists()

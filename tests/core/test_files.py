"""Files that are whole or not there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nashtune.files import atomic_path, sha256_of, write_bytes_atomically


def test_a_file_gets_its_name_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "file"
    with atomic_path(path) as partial:
        partial.write_bytes(b"one")
        assert not path.exists() and partial.parent == path.parent
    assert path.read_bytes() == b"one"
    write_bytes_atomically(path, b"two")
    assert path.read_bytes() == b"two" and list(path.parent.iterdir()) == [path]
    assert sha256_of(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


@pytest.mark.parametrize("shared", [False, True])
def test_a_block_that_fails_leaves_the_older_file(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full() -> None:
        with atomic_path(path, shared=shared) as partial:
            partial.write_bytes(b"ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        full()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_overwritten_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom nashtune.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as partial:\n"
        "    partial.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "file"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -9
    assert [left.name for left in tmp_path.iterdir()] == [".file.partial"]
    write_bytes_atomically(path, b"whole")
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"whole"


def test_writers_of_a_shared_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_path(path, shared=True) as first, atomic_path(path, shared=True) as second:
        assert first != second
        first.write_bytes(b"same")
        second.write_bytes(b"same")
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"same"


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_replace(source: Path, target: Path) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_bytes_atomically(tmp_path / "file", b"data")
    assert done == ["file", "name", "folder"]


def test_who_may_read_it_is_what_the_system_says_and_not_what_the_writer_did(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with atomic_path(tmp_path / "file") as partial:
        partial.unlink()
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode

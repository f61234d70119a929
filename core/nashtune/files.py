"""Writing files that are whole or not there, also after a kill or a loss of power."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; when the block ends, the file is on the disk and has its name.

    If the block raises, nothing of it is left and an older `path` is as it was. A block that never ends, because the
    process was killed, leaves a hidden `.NAME.partial`, which the next attempt at the same file overwrites.

    Args:
        path: The file; missing folders are made.
        shared: Other processes may write the same file at this moment (a cache): what is written to has a name of its
            own then.

    Raises:
        OSError: the disk is full, the folder cannot be written to, ...
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f".{os.getpid()}-{secrets.token_hex(4)}" if shared else ""
    partial = path.with_name(f".{path.name}{own}.partial")
    try:
        partial.unlink(missing_ok=True)  # it may be a link to another file, put there by whoever made the folder
        partial.open("xb").close()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # safetensors makes files that nobody else may read
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write a file at once or not at all; see `atomic_path`."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


UNWRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than is allowed here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing is not allowed",
}


def cannot_write(error: BaseException) -> str | None:
    """What kept something from being written, where that is what an exception is about.

    Libraries that write in another language report a full disk by its text alone.
    """
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return f"{error.filename}: {UNWRITABLE[error.errno]}" if error.filename else UNWRITABLE[error.errno]
    for number, text in UNWRITABLE.items():
        if os.strerror(number) in str(error) and f"(os error {number})" in str(error):
            return text
    return None


def sha256_of(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """A new name is in its folder, and a folder is on the disk only once it is synced itself."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

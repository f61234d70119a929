"""Things that leave a mark when they run: a module, an object that is unpickled, a model's own code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = "evil_parts"
CLASSES = '''
from nashtune.interfaces import Loss
from lightning.pytorch import Callback

class Bad(Loss):
    """Not what it seems."""

    def __call__(self, batch, step):
        raise NotImplementedError

class Tap(Callback):
    """Listens."""
'''


class Mark:
    """Whether anything ran.

    Attributes:
        file: Made by what ran.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "executed"

    @property
    def made(self) -> bool:
        return self.file.exists()

    @property
    def line(self) -> str:
        """Python that leaves the mark."""
        return f"open({str(self.file)!r}, 'w').close()\n"


class Payload:
    """Unpickling it makes a folder: a call that a pickle can ask for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def mark(tmp_path: Path) -> Mark:
    return Mark(tmp_path)


@pytest.fixture
def evil(mark: Mark, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that anybody could import, and whose import leaves the mark."""
    site = mark.file.parent / "site"
    site.mkdir()
    (site / f"{MODULE}.py").write_text(mark.line + CLASSES)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield MODULE
    sys.modules.pop(MODULE, None)


@pytest.fixture
def payload(mark: Mark) -> Payload:
    return Payload(mark.file)

"""A folder on the path that stands for site-packages: distributions are written into it, not installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from nashtune.plugins.manager import load_plugins


class Site:
    """A folder that is searched first for modules and for distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, path: str, text: str) -> Path:
        """Write a file of the folder, a module for instance."""
        whole = self.folder / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(dedent(text).lstrip())
        importlib.invalidate_caches()
        return whole

    def dist(self, name: str, version: str = "1.0", **points: str) -> None:
        """A distribution with entry points of the group `nashtune`: name=value."""
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        self.file(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "\n".join(f"{key} = {value}" for key, value in points.items())
        self.file(f"{info}/entry_points.txt", f"[nashtune]\n{lines}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Modules imported from the folder are forgotten afterwards, and so are the plugins."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.delenv("NASHTUNE_STRICT_PLUGINS", raising=False)
    monkeypatch.delenv("NASHTUNE_BLOCK", raising=False)
    load_plugins.cache_clear()
    yield Site(folder)
    load_plugins.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "") or "").startswith(str(folder)):
            del sys.modules[name]
    sys.path_importer_cache.pop(str(folder), None)

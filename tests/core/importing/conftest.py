from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Import a config's text in an empty folder; returns what --json prints, and the exit code as `code`."""
    monkeypatch.chdir(tmp_path)

    def run(tool: str, text: str, *options: str, name: str = "config.yaml") -> dict[str, Any]:
        from nashtune.cli.main import main

        (tmp_path / name).write_text(text)
        capsys.readouterr()
        code = main(["import", tool, name, "--json", *options])
        out = capsys.readouterr()
        assert out.out, out.err
        shown: dict[str, Any] = json.loads(out.out)
        return {**shown, "code": code, "by_key": {item["key"]: item for item in shown["keys"]}}

    return run


@pytest.fixture
def errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Import a config's text that is refused, so that nothing is written; returns every line of the message."""
    monkeypatch.chdir(tmp_path)

    def run(tool: str, text: str, *options: str) -> str:
        from nashtune.cli.main import main

        (tmp_path / "c.yaml").write_text(text)
        capsys.readouterr()
        assert main(["import", tool, "c.yaml", *options]) == 2
        assert not list(tmp_path.glob("c.*.yaml"))
        return capsys.readouterr().err

    return run

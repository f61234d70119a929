from __future__ import annotations

import argparse
import json

import pytest

from nashtune.cli import plugins as command
from nashtune.plugins.manager import BLOCK, load_plugins


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """`nashtune plugins ARGUMENTS`, loading plugins anew."""

    def run(*arguments: str) -> int:
        load_plugins.cache_clear()
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args(arguments))

    monkeypatch.setenv(BLOCK, "ghost")
    yield run
    load_plugins.cache_clear()


def test_json_lists_every_plugin_with_its_components(run, capsys):
    assert run("--json") == 0
    by_name = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(by_name)[:2] == ["nashtune", "builtin"]
    assert set(by_name["nashtune"]) == {"name", "dist", "version", "status", "reason", "components", "spec_dirs"}
    fixed = {"kind": "kl", "name": "fixed", "target": "nashtune.kl.fixed:FixedKL", "api": 1}
    assert fixed in by_name["nashtune"]["components"]
    assert by_name["ghost"]["status"] == "blocked" and "no installed plugin" in by_name["ghost"]["reason"]


def test_the_table_shows_names_and_the_reason_in_full(run, capsys):
    assert run() == 0
    out = capsys.readouterr().out
    assert "best_worst, all_pairs, adjacent" in out
    [line] = [line for line in out.splitlines() if line.startswith("plugin 'ghost'")]
    assert "is blocked by NASHTUNE_BLOCK: but no installed plugin has this name" in line

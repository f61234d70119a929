from __future__ import annotations

import argparse
import json
import sys

import pytest

from nashtune.cli import plugins as command
from nashtune.errors import InputError
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


HOOKS = """
from nashtune.plugins import Component, hookimpl


@hookimpl
def nashtune_components():
    return [Component("loss", "acme", "acme_pkg.loss:AcmeLos")]
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """An installed plugin that names a class which is not there."""
    files = {
        "acme_pkg/__init__.py": HOOKS,
        "acme_pkg/loss.py": "from nashtune.interfaces import Loss\n\n\nclass AcmeLoss(Loss): ...\n",
        "acme-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n",
        "acme-1.0.dist-info/entry_points.txt": "[nashtune]\nacme = acme_pkg\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_pkg"]:
        del sys.modules[name]


def test_a_class_that_is_not_there_is_said_once(run, acme, capsys):
    assert run() == 0
    said = capsys.readouterr()
    assert "refused" in said.out and not said.err
    reason = "loss 'acme': module acme_pkg.loss has no class 'AcmeLos'; did you mean 'AcmeLoss'? (known: AcmeLoss)"
    assert said.out.count(f"plugin 'acme' is not used in full: {reason}") == 1


def test_strict_makes_it_fatal(run, acme, monkeypatch):
    monkeypatch.setenv("NASHTUNE_STRICT_PLUGINS", "1")
    with pytest.raises(InputError, match="NASHTUNE_STRICT_PLUGINS=1: plugin 'acme' is not used in full: loss 'acme'"):
        run("--json")

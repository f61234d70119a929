"""A plugin is code that somebody installed; it can fail, but not take another's place unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOOKS = """
from nashtune.plugins import Component, hookimpl

@hookimpl
def nashtune_components():
    return [
        Component("loss", "dpo", "evil_plugin.loss:Mine"),
        Component("oracle", "rules", "evil_plugin.loss:Mine"),
        Component("loss", "evil_loss", "evil_plugin.loss:Mine"),
    ]
"""


@pytest.fixture
def site(tmp_path: Path, mark) -> Path:
    """A plugin that takes built-in names, and whose loss leaves the mark when it is imported."""
    site = tmp_path / "site"
    (site / "evil_plugin").mkdir(parents=True)
    (site / "evil_plugin" / "__init__.py").write_text(HOOKS)
    (site / "evil_plugin" / "loss.py").write_text(
        mark.line + "from nashtune.interfaces import Loss\nclass Mine(Loss): ...\n"
    )
    info = site / "evil_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nashtune]\nevil = evil_plugin\n")
    return site


def nashtune(site: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "nashtune", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path, **environ}, capture_output=True, text=True)


def test_a_plugin_cannot_take_a_built_in_name(site: Path, mark) -> None:
    done = nashtune(site, "show", "dpo", "--json")
    assert done.returncode == 0 and "nashtune_plugins.dpo:DPOLoss" in done.stdout
    assert "plugin 'evil' (evil-plugin 1.0) is not used in full" in done.stderr
    assert not mark.made  # naming a component imports nothing


def test_a_blocked_plugin_is_not_imported(site: Path, mark) -> None:
    (site / "evil_plugin" / "__init__.py").write_text(mark.line + HOOKS)
    done = nashtune(site, "check", "dpo", NASHTUNE_BLOCK="evil")
    assert done.returncode == 0 and not mark.made
    refused = nashtune(site, "check", "dpo", "--spec.loss", "evil_plugin.loss.Mine", NASHTUNE_BLOCK="evil")
    assert refused.returncode == 2 and "--allow-import evil_plugin" in refused.stderr and not mark.made


def test_a_plugin_that_ends_the_process_does_not(site: Path) -> None:
    (site / "evil_plugin" / "__init__.py").write_text("raise SystemExit(0)\n")
    done = nashtune(site, "check", "dpo")
    assert done.returncode == 0 and "dpo: ok" in done.stdout
    assert "plugin 'evil' (evil-plugin 1.0) failed: evil_plugin cannot be imported: SystemExit" in done.stderr
    assert nashtune(site, "check", "dpo", NASHTUNE_STRICT_PLUGINS="1").returncode == 2

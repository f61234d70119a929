"""`nashtune new` of the installed wheel makes a plugin that installs, passes its own tests, trains, and goes again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab import pair_rows, write_rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def alone(fresh, tmp_path_factory: pytest.TempPathFactory):
    """An environment of its own with nashtune's wheel, and no other plugin; what nashtune needs is as in `fresh`."""
    venv = tmp_path_factory.mktemp("alone") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    install = ("install", "--quiet", "--no-index", "--no-deps")
    pip("--python", venv / "bin" / "python", *install, fresh.wheel)
    [behind] = fresh.folder.glob("lib/python*/site-packages/dependencies.pth")
    [site] = venv.glob("lib/python*/site-packages")
    (site / behind.name).write_text(behind.read_text())
    return dataclasses.replace(fresh, folder=venv)


@pytest.fixture(scope="module")
def rendered(alone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine") / "acme-margin"
    done = alone.nashtune("new", "acme-margin", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(alone, rendered: Path):
    """The environment with the plugin in it, as a wheel."""
    wheels = rendered.parent / "wheels"
    pip("wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, rendered)
    [wheel] = wheels.glob("acme_margin-*.whl")
    pip("--python", alone.folder / "bin" / "python", "install", "--quiet", "--no-index", "--no-deps", wheel)
    return alone


def plugins(environment) -> dict[str, dict]:
    done = environment.nashtune("plugins", "--json", NASHTUNE_STRICT_PLUGINS="1")
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)}


def test_the_wheel_holds_the_template_as_it_is_in_the_repository(alone):
    [shipped] = alone.folder.glob("lib/python*/site-packages/nashtune/plugin_template")
    source = ROOT / "docs" / "plugin-template"

    def texts(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in str(path.relative_to(folder)))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    assert texts(shipped) == texts(source)
    assert len(texts(shipped)) == 10


def test_it_is_listed_with_what_it_offers_and_cannot_be_made_twice(installed, tmp_path: Path):
    mine = plugins(installed)["acme_margin"]
    assert (mine["dist"], mine["version"], mine["status"], mine["reason"]) == ("acme-margin", "0.1.0", "ok", "")
    [loss] = mine["components"]
    assert (loss["kind"], loss["name"], loss["target"]) == ("loss", "acme_margin", "acme_margin.loss:AcmeMarginLoss")
    again = installed.nashtune("new", "acme-margin", "--out", str(tmp_path / "again"))
    assert again.returncode == 2
    assert "the distribution acme-margin 0.1.0 is installed" in again.stderr
    assert "there is a plugin 'acme_margin'" in again.stderr


@pytest.mark.parametrize("arguments", [("check", "acme_margin", "--build"), ("vectors", "acme_margin")])
def test_commands_know_its_spec(installed, arguments: tuple[str, ...]):
    done = installed.nashtune(*arguments)
    assert done.returncode == 0, done.stderr


def test_its_own_tests_pass(installed, rendered: Path):
    done = installed.python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(rendered), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout and "skipped" not in done.stdout


def test_it_trains_two_steps(installed, tiny: Path, tmp_path: Path):
    write_rows(tmp_path / "pairs.jsonl", pair_rows(8))
    run = {
        "policy": {"path": str(tiny)},
        "data": {"train": str(tmp_path / "pairs.jsonl"), "batch_size": 4, "max_length": 128},
        "trainer": {"accelerator": "cpu", "max_steps": 2, "enable_progress_bar": False},
        "samples": {"prompts": 0},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    folder = tmp_path / "run"
    options = ("--config", str(tmp_path / "run.yaml"), "--run_dir", str(folder))
    done = installed.nashtune("fit", "--spec", "acme_margin", *options, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "report.json").read_text())["steps"] == 2
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["spec"]["loss"] == {"name": "acme_margin", "margin": 1.0}


def test_it_goes_without_a_trace(installed):
    pip("--python", installed.folder / "bin" / "python", "uninstall", "--quiet", "--yes", "acme-margin")
    assert "acme_margin" not in plugins(installed)
    gone = installed.nashtune("check", "acme_margin")
    assert gone.returncode == 2
    assert "no spec is called 'acme_margin'" in gone.stderr

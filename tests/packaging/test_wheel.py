from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("core/nashtune", "plugins/nashtune_plugins", "specs/nashtune_specs")


def shipped() -> set[str]:
    """Every file of the three packages and of the plugin template, as the wheel names it."""
    template = ROOT / "docs/plugin-template"
    rendered = {
        f"nashtune/plugin_template/{path.relative_to(template).as_posix()}"
        for path in template.rglob("*")
        if path.is_file() and not any("cache" in part for part in path.relative_to(template).parts)
    }
    return rendered | {
        str(path.relative_to((ROOT / package).parent))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(fresh):
    names = {name for name in zipfile.ZipFile(fresh.wheel).namelist() if ".dist-info/" not in name}
    assert names == shipped()
    assert any(name.startswith("nashtune_specs/") and name.endswith(".yaml") for name in names)


def test_what_is_imported_is_the_installed_copy(fresh):
    code = (
        "import json, sys, nashtune, nashtune_plugins;"
        "print(json.dumps([nashtune.__file__, nashtune_plugins.__file__, sys.path]))"
    )
    nashtune, plugins, path = json.loads(fresh.python("-c", code).stdout)
    assert nashtune.startswith(str(fresh.folder)) and plugins.startswith(str(fresh.folder))
    assert not [place for place in path if place.startswith(str(ROOT / "core"))]


def test_list_knows_every_spec_of_the_wheel(fresh):
    done = fresh.nashtune("list", "--json")
    assert done.returncode == 0, done.stderr
    names = {one["name"] for one in json.loads(done.stdout)}
    assert {path.stem for path in (ROOT / "specs/nashtune_specs").glob("*.yaml")} <= names


@pytest.mark.parametrize("arguments", [("list",), ("show", "dpo"), ("plugins",), ("schema",), ("check", "dpo")])
def test_the_thin_commands_work_from_the_wheel(fresh, arguments):
    done = fresh.nashtune(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

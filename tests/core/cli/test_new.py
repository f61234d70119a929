from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from nashtune.authoring import template
from nashtune.authoring.names import BESIDE, TEMPLATE, Names, spell
from nashtune.authoring.template import find_template, render, write_folder
from nashtune.cli.main import main
from nashtune.errors import InputError

FILES = {
    ".github/workflows/ci.yml",
    ".gitignore",
    "README.md",
    "acme_pull/__init__.py",
    "acme_pull/loss.py",
    "acme_pull/specs/acme_pull.yaml",
    "acme_pull/specs/vectors/acme_pull.json",
    "docs/acme_pull.md",
    "pyproject.toml",
    "tests/test_acme_pull.py",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_name_has_three_spellings():
    assert spell("acme-pull-2") == Names("acme-pull-2", "acme_pull_2", "AcmePull2")
    assert spell("my-method") == TEMPLATE


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("My_Method", "my-method"),
        ("MyMethod", "my-method"),
        ("my method", "my-method"),
        ("a--b", "a-b"),
        ("2fast", "fast"),
        ("gpo!", "gpo"),
        ("-x", "x"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_one(name, meant):
    with pytest.raises(InputError, match=r"a-z, 0-9 and single hyphens") as refused:
        spell(name)
    assert str(refused.value).endswith(f"did you mean '{meant}'?")


@pytest.mark.parametrize("name", ["", "42", "β"])
def test_a_name_without_a_nearest_one_is_refused_all_the_same(name):
    with pytest.raises(InputError, match=r"begins with a letter$"):
        spell(name)


def test_every_spelling_is_replaced_in_paths_and_texts(here: Path):
    assert main(["new", "acme-pull"]) == 0
    made = here / "acme-pull"
    assert files_in(made) == FILES
    for path in made.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [old for old in vars(TEMPLATE).values() if old in text], path
    assert "class AcmePullLoss(Loss):" in (made / "acme_pull/loss.py").read_text(encoding="utf-8")
    project = tomllib.loads((made / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "acme-pull"
    assert project["project"]["entry-points"]["nashtune"] == {"acme_pull": "acme_pull"}
    spec = yaml.safe_load((made / "acme_pull/specs/acme_pull.yaml").read_text(encoding="utf-8"))
    assert spec["loss"]["name"] == spec["about"]["plugin"] == "acme_pull"
    yaml.safe_load((made / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def test_a_name_that_holds_the_templates_is_replaced_once():
    rendered = render(find_template(), spell("my-method-x"))
    assert "my_method_x/loss.py" in rendered
    assert "class MyMethodXLoss(Loss):" in rendered["my_method_x/loss.py"]
    assert "my_method_x_x" not in "".join(rendered.values())


def test_the_next_commands_are_said(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["new", "acme-pull", "--out", "deep/a folder"]) == 0
    assert files_in(here / "deep" / "a folder") == FILES
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "deep/a folder: 10 files, a plugin that works. Next:"
    assert "cd 'deep/a folder'" in lines
    assert any(line.startswith("nashtune fit --spec acme_pull --config demo") for line in lines)


def test_no_package_is_called_like_a_folder_that_its_git_ignores():
    ignored = (find_template() / ".gitignore").read_text(encoding="utf-8").split()
    assert {line.strip("/") for line in ignored if not line.startswith((".", "__"))} <= set(BESIDE)


@pytest.mark.parametrize("name", ["ab", "acme-pull", "a-name-of-a-length-that-no-method-has-yet-1"])
def test_what_is_rendered_is_formatted(here: Path, name: str):
    assert main(["new", name]) == 0
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", name], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["ab", "a-name-of-a-length-that-no-method-has-yet-1"])
def test_no_comment_stands_behind_a_name_that_would_move_it(name: str):
    rendered = render(find_template(), spell(name))
    package = spell(name).package
    for path in ("README.md", "pyproject.toml"):
        lines = rendered[path].splitlines()
        assert not [line for line in lines if package in line.partition("#")[0] and "#" in line.partition(package)[2]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dpo", ["plugin 'builtin' has a spec 'dpo'", "there is a loss 'dpo'"]),
        ("nashtune", ["another 'nashtune'", "the distribution nashtune", "a plugin 'nashtune'"]),
        ("builtin", ["there is a plugin 'builtin'"]),
        ("json", ["Python imports another 'json'"]),
        ("winreg", ["Python imports another 'winreg'"]),
        ("pytest-timeout", ["Python imports another 'pytest_timeout'", "the distribution pytest-timeout"]),
        ("class", ["'class' is a word of Python"]),
        ("none", ["is not 'none'"]),
        ("tests", ["the folder tests/ has another use"]),
        ("runs", ["the folder runs/"]),
    ],
)
def test_a_taken_name_is_refused_with_who_has_it(here: Path, capsys: pytest.CaptureFixture[str], name, said):
    assert main(["new", name]) == 2
    message = capsys.readouterr().err
    for words in said:
        assert words in message
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link to nothing"])
def test_what_is_there_stays_as_it_is(here: Path, capsys: pytest.CaptureFixture[str], kind: str):
    there = here / "acme-pull"
    match kind:
        case "folder":
            there.mkdir()
            (there / "mine.txt").write_text("mine")
        case "empty folder":
            there.mkdir()
        case "file":
            there.write_text("mine")
        case _:
            there.symlink_to("nowhere")
    before = files_in(here)
    assert main(["new", "acme-pull"]) == 2
    assert "already; it stays as it is. Say another with --out" in capsys.readouterr().err
    assert files_in(here) == before
    assert os.path.lexists(there)


def test_a_place_below_a_file_is_an_input_error(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "file").write_text("mine")
    assert main(["new", "acme-pull", "--out", "file/plugin"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException):
    def write(path: Path, data: bytes) -> None:
        if path.name == "loss.py":
            raise error
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(template, "write_bytes_atomically", write)
    with pytest.raises((InputError, KeyboardInterrupt), match=r"the disk is full|^$"):
        write_folder(here / "acme-pull", render(find_template(), spell("acme-pull")))
    assert list(here.iterdir()) == []


def test_what_tools_leave_behind_is_no_part_of_the_template(tmp_path: Path):
    for name in (
        "my_method/__pycache__/loss.cpython-311.pyc",
        ".pytest_cache/README.md",
        "dist/x.whl",
        "my_method/a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff" if "my_method/a" not in name else b"")
    assert set(render(tmp_path, spell("acme-pull"))) == {"acme_pull/a.py"}


def test_the_template_is_found_in_a_wheel_first_and_a_missing_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    installed, checkout = tmp_path / "nashtune/plugin_template", tmp_path / "docs/plugin-template"
    monkeypatch.setattr(template, "PLACES", (installed, checkout))
    with pytest.raises(InputError, match="the template is missing"):
        find_template()
    checkout.mkdir(parents=True)
    assert find_template() == checkout
    installed.mkdir(parents=True)
    assert find_template() == installed


def test_torch_is_not_imported(here: Path):
    code = (
        "import sys; from nashtune.cli.main import main; code = main(['new', 'acme-pull']);"
        "sys.exit(code or sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

from __future__ import annotations

from pathlib import Path

import pytest

from nashtune.errors import InputError
from nashtune.plugins.spec_files import SpecFile, spec_files
from nashtune.spec import locate


def test_specs_are_listed_by_name_with_their_plugin():
    listed = {one.name: one for one in locate.list_specs()}
    assert listed["dpo"].plugin == "builtin"
    assert listed["dpo"].file.read_text(encoding="utf-8").count("loss:") == 1
    assert list(listed) == sorted(listed)


def test_a_name_and_its_path_are_the_same_file():
    by_name = locate.find_spec("dpo")
    assert locate.find_spec(str(by_name)).read_bytes() == by_name.read_bytes()


def test_run_files_are_in_a_folder_of_their_own():
    assert "demo" in {one.name for one in locate.list_runs()}
    assert locate.find_run("demo").name == "demo.yaml"
    assert "demo" not in {one.name for one in locate.list_specs()}


@pytest.mark.parametrize(
    ("find", "name", "said"),
    [
        (locate.find_spec, "dop", "no spec is called 'dop'; did you mean 'dpo'?"),
        (locate.find_spec, "", "no spec is called ''"),
        (locate.find_run, "dmeo", "no run file is called 'dmeo'; did you mean 'demo'?"),
        (locate.find_spec, "no/such.yaml", "no/such.yaml: no such file"),
        (locate.find_spec, "./folder", "./folder: is a folder; give the spec's file"),
        (locate.find_spec, "dpo2.yaml", "dpo2.yaml: no such file; did you mean 'dpo1.yaml'?"),
    ],
)
def test_what_is_not_there(find, name, said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "dpo1.yaml").write_text("loss: dpo")
    with pytest.raises(InputError) as caught:
        find(name)
    assert said in str(caught.value)


def test_a_name_that_two_plugins_bring_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Two:
        def spec_files(self) -> list[tuple[str, SpecFile]]:
            folders = {"one": tmp_path / "a", "two": tmp_path / "b"}
            return [(plugin, file) for plugin, folder in folders.items() for file in spec_files(folder)]

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text("loss: dpo")
    monkeypatch.setattr(locate, "load_plugins", Two)
    assert [one.plugin for one in locate.list_specs()] == ["one", "two"]
    with pytest.raises(InputError, match=r"spec 'mine' is given by plugin 'one' \(.*\) and plugin 'two'"):
        locate.find_spec("mine")

"""The hook reference and the tables of docs/extend are what the code says; deprecation works as it is described."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import runpy
import tomllib
from pathlib import Path

import pluggy
import pytest

from nashtune import interfaces
from nashtune.plugins import API, KINDS, Component, hookimpl, hookspecs
from nashtune.plugins.hookcalls import ask

ROOT = Path(__file__).parents[2]
EXTEND = ROOT / "docs" / "extend"
PAGES = sorted(EXTEND.glob("*.md"))
RENDER = runpy.run_path(str(Path(__file__).with_name("render_hooks.py")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_generated_parts_are_current(page: Path):
    text = page.read_text(encoding="utf-8")
    now = RENDER["render"](text)
    changes = difflib.unified_diff(text.splitlines(), now.splitlines(), page.name, "now", lineterm="", n=0)
    assert text == now, "\n".join(["run `python tests/docs/render_hooks.py`", *changes])


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_the_reference_has_every_hook_with_its_arguments_and_since_when(hook: str):
    function = getattr(hookspecs, hook)
    arguments = ", ".join(inspect.signature(function).parameters)
    page = (EXTEND / "hooks.md").read_text(encoding="utf-8")
    assert f"\n### `{hook}({arguments})`\n" in page
    since = re.search(r"Since:\s+Plugin API (\d+)\.", inspect.cleandoc(function.__doc__ or ""))
    assert since is not None and 1 <= int(since[1]) <= API


def test_the_page_of_hooks_serves_the_author_of_a_plugin_first():
    headings = re.findall(r"^## (.+)$", (EXTEND / "hooks.md").read_text(encoding="utf-8"), re.MULTILINE)
    order = ["When each is called", "The smallest plugin", "Reference", "What they return", "What is promised"]
    assert headings == order


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_page_with_an_example_its_interface_and_its_check(kind: str):
    page = (EXTEND / f"{kind}.md").read_text(encoding="utf-8")
    assert f'```python title="my_{kind}.py"' in page
    for target in KINDS[kind]:
        assert re.search(rf"<!-- generated: methods [\w ]*\b{target.partition(':')[2]}\b", page)
    assert "<!-- generated: attributes " in page
    assert "check_component(" in page
    assert f"]({kind}.md)" in (EXTEND / "index.md").read_text(encoding="utf-8")


def test_a_table_holds_defaults_and_whole_descriptions():
    table = RENDER["attributes"]("Loss")
    assert (
        '| `anchors` | `("ref",)` | Names of the references whose log-probs the loss reads. |'.replace('"', "'")
        in table
    )
    assert '| `mean_over` | `"rows"` |' in table
    assert RENDER["methods"]("Loss").splitlines()[2].startswith("| `__call__(batch, step)` | yes |")


BATCHES = sorted({name for page in PAGES for name in re.findall(r"^### `(\w+)`$", page.read_text(), re.MULTILINE)})


@pytest.mark.parametrize("name", [name for name in BATCHES if hasattr(interfaces, name)])
def test_a_batch_has_a_row_for_each_of_its_fields(name: str):
    rows = RENDER["batches"](name).splitlines()
    listed = [row.split("`")[1] for row in rows if row.startswith("| `")]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(getattr(interfaces, name)))


@pytest.mark.parametrize(
    ("page", "batches"),
    [
        ("loss", {"PairBatch", "ExampleBatch", "RolloutBatch", "ScoreBatch", "Step", "LossOutput", "Advantages"}),
        ("kl", {"PairBatch", "ExampleBatch", "RolloutBatch"}),
    ],
)
def test_a_page_lists_the_fields_of_what_it_is_given(page: str, batches: set[str]):
    text = (EXTEND / f"{page}.md").read_text(encoding="utf-8")
    assert batches <= set(re.findall(r"^### `(\w+)`$", text, re.MULTILINE))
    assert "| `policy_chosen` | (B,) | nats | always | log pi(y_w\\|x), with gradient. |" in text


def test_the_page_of_interfaces_says_in_markdown_where_each_name_is():
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = {path.rpartition(".")[2] for path in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)}
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert named == set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))


def test_a_field_without_shape_unit_and_presence_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interfaces.Anchor, "__doc__", "One.\n\nArgs:\n    chosen: Of the chosen ones (B,).\n")
    with pytest.raises(SystemExit, match=r"Anchor.chosen: its line does not end with \[shape; unit"):
        RENDER["batches"]("Anchor")


def test_a_deprecated_hook_warns_for_the_plugins_file_and_goes_on_working():
    class Specs:
        @hookspecs.hookspec(warn_on_impl=DeprecationWarning("nashtune: nashtune_components goes; write nashtune_parts"))
        def nashtune_components(self): ...

        @hookspecs.hookspec
        def nashtune_spec_dirs(self): ...

    class Plugin:
        @hookimpl
        def nashtune_components(self):
            return [Component("loss", "acme", "acme.loss:Acme")]

    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(Specs)
    with pytest.warns(DeprecationWarning, match="^nashtune") as seen:
        offer = ask(manager, "acme", Plugin())
    assert [one.name for one in offer.components] == ["acme"] and not offer.failure
    assert [warning.filename for warning in seen] == [__file__]


def test_a_plugins_own_tests_make_such_a_warning_an_error():
    project = tomllib.loads((ROOT / "docs/plugin-template/pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["pytest"]["ini_options"]["filterwarnings"] == ["error:nashtune:DeprecationWarning"]

"""The gallery is what its generator writes from the specs, and its pictures are of the specs as they are."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from gallery_draw import save
from gallery_figures import headline, inputs, recipe, verified
from gallery_lineage import lineage, linked, parents
from gallery_page import FOLDER, NUMBERS, PAGE, edges, lineage_inputs, names, render
from nashtune.spec.reductions import Reduction

STORED = json.loads(NUMBERS.read_text(encoding="utf-8"))
ANEW = "run `python tests/gallery_page.py`"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_is_what_the_generator_writes():
    assert PAGE.read_text(encoding="utf-8") == render(STORED), ANEW


@pytest.mark.parametrize("name", names())
def test_a_picture_is_of_the_spec_as_it_is(name: str):
    assert STORED[name]["inputs"] == inputs(name), ANEW


@pytest.mark.parametrize("name", ["lineage", *(name for name in names() if recipe(name).picture != "none")])
def test_a_picture_has_text_and_marks_and_is_small(name: str):
    file = FOLDER / f"{name}.svg"
    root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg"
    assert len(list(root.iter(f"{SVG}text"))) > 8 and len(list(root.iter(f"{SVG}path"))) > 8
    assert file.stat().st_size < 60_000


def test_the_text_of_a_picture_is_as_it_was_drawn(tmp_path: Path):
    """Coordinates are shortened, and a tick's 0.075 stays what it is."""
    figure = Figure()
    figure.subplots().set(yticks=[0.0, 0.075], ylabel="1.23456")
    save(figure, tmp_path / "one.svg")
    shown = [one.text for one in ElementTree.parse(tmp_path / "one.svg").iter(f"{SVG}text")]
    assert {"0.075", "1.23456"} <= set(shown)


def test_there_is_no_picture_of_a_spec_that_is_gone():
    drawn = {name for name in names() if recipe(name).picture != "none"}
    assert {file.stem for file in FOLDER.glob("*.svg")} == drawn | {"lineage"}


def flat(numbers: dict[str, object]) -> list[float]:
    return [one for value in numbers.values() for one in (value if isinstance(value, list) else [value])]


@pytest.mark.parametrize("name", ["dpo", "online_dpo", "rloo"])
def test_the_numbers_below_a_picture_are_those_of_its_command(name: str):
    made = recipe(name)
    found, kept = headline(verified(made.command), made.picture), STORED[name]["headline"]
    assert list(found) == list(kept)
    assert flat(found) == pytest.approx(flat(kept), rel=1e-4)


def test_a_picture_shows_what_the_kind_of_method_is_about():
    kinds = {name: recipe(name).picture for name in names()}
    assert kinds["onpo"] == "game" and kinds["uncertainty_rlhf"] == "bandit" and kinds["dpo"] == "optimum"
    assert kinds["reward_bt"] == kinds["kto"] == "curve" and kinds["nash_md_pg"] == "none"


def test_the_lineage_is_read_from_the_specs():
    joined = edges()
    assert joined["cdpo"] == {"dpo": True} and joined["onpo_virtual"] == {"onpo": False, "ipo_sum": True, "inpo": True}
    assert [(a, b) for a, others in joined.items() for b in others if a in joined[b]] == []  # one way of two is "is"
    assert STORED["lineage"] == lineage_inputs(), ANEW


def test_an_edge_is_exact_where_one_of_its_entries_is():
    known = ["dpo", "ipo"]
    found = [
        Reduction("ipo", False, when="far away"),
        Reduction("dpo", False, when="near the start"),
        Reduction("dpo", True, {"kl.epsilon": 0.0}, {"kl.beta": 0.1}, "at last"),
        Reduction("no spec", True, when="anywhere"),
    ]
    assert parents(found, known) == {"ipo": False, "dpo": True}
    assert linked(found[2], known) == "[dpo](#dpo) with `kl.beta`: 0.1, at `kl.epsilon`: 0.0 here, at last"
    assert linked(found[3], known) == "no spec, anywhere"


def test_nearly_is_dashed():
    kinds = {"dpo": "offline", "ipo": "offline", "onpo": "game"}
    figure = lineage(kinds, {"ipo": {"dpo": True}, "onpo": {"dpo": False}})
    arrows = [one for one in figure.axes[0].patches if isinstance(one, FancyArrowPatch)]
    assert [one.get_linestyle() == "solid" for one in arrows] == [True, False]

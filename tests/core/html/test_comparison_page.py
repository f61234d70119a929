from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from made_comparison import POLICIES, comparison
from nashtune.cli.main import main
from nashtune.comparison.ratings import Ratings
from nashtune.errors import InputError
from nashtune.evaluation.estimate import Estimate
from nashtune.html.comparison_board import tiles
from nashtune.html.comparison_figures import (
    colours,
    ranked,
    rating_figures,
    win_matrices,
)
from nashtune.html.comparison_files import answers_of_comparison, read_comparison
from nashtune.html.comparison_frontier import frontier_figure, staircase
from nashtune.html.comparison_page import render
from nashtune.html.comparison_setup import judge
from nashtune.html.drawing import Figure
from nashtune.html.facts import Tile
from nashtune.html.plane import Plane, Point
from nashtune.html.scatter import scatter_figure


def text_of(page: str) -> str:
    seen = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", seen).split())


def data_of(page: str) -> Any:
    (block,) = re.findall(r'<script type="application/json" id="answers-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return comparison(tmp_path_factory.mktemp("comparison") / "dpo-ipo-onpo-001")


@pytest.fixture(scope="module")
def ratings(folder: Path) -> Ratings:
    return Ratings.from_dict(json.loads((folder / "comparison.json").read_text())["ratings"])


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return render(folder)


def test_the_ranking_is_by_elo(ratings: Ratings, page: str):
    names = [ratings.policies[i] for i in ranked(ratings)]
    assert names == ["onpo", "dpo", "ipo", "start"]
    board = re.search(r'<table class="board">(.*?)</table>', page, re.DOTALL)
    assert board is not None
    assert re.findall(r"</span>(\w+)<", board[1]) == names
    elo = ratings.elo.rating.value
    assert f"<td>{elo[ratings.policies.index('onpo')]:.0f}<small>" in board[1]


def test_figures_show_the_ratings(ratings: Ratings):
    figures = {one.name: one for one in rating_figures(ratings)}
    mean = figures["rating-mean"].values
    assert mean is not None
    best = ratings.policies.index("onpo")
    low, high = (float(part[best]) for part in (ratings.mean_win_rate.low, ratings.mean_win_rate.high))
    assert mean.rows[0] == ["onpo", f"{ratings.mean_win_rate.value[best]:.3f}", f"{low:.3f} to {high:.3f}"]
    bars = [mark for mark in figures["rating-nash"].marks if mark.kind == "rect"]
    assert len(bars) == 4


def test_the_matrix_is_in_the_order_of_the_ranking(ratings: Ratings):
    plain, controlled = win_matrices(ratings)
    assert list(plain.names) == ["onpo", "dpo", "ipo", "start"]
    first, last = (ratings.policies.index(name) for name in ("onpo", "start"))
    assert plain.cells[0][3].text == f"{ratings.win_rate.value[first, last]:.2f}" and plain.cells[0][3].side == "win"
    assert plain.cells[3][0].side == "loss" and plain.cells[3][0].sure
    assert controlled.cells[0][4].text == f"{ratings.length_controlled.mean.value[first]:.2f}"


def test_the_frontier_has_a_point_for_each_policy_and_each_seed(ratings: Ratings):
    assert ratings.frontier is not None
    found = frontier_figure(ratings, ratings.frontier, [4, 7])
    assert found.narrow is not None and found.narrow.width < found.width
    for one in (found, found.narrow):
        dots = [mark for mark in one.marks if mark.kind == "circle"]
        assert sum("faint" in mark.style for mark in dots) == 8 and len(dots) == 12
        assert {mark.text for mark in one.marks if mark.style == "name"} == set(POLICIES)
        assert dots[-1].title.startswith("start: ")  # which no other point covers
        assert [
            mark.title for mark in dots if mark.title.startswith("ipo, seed 7: KL(policy ‖ start), nats per answer ")
        ]
    assert found.values is not None and "dpo, seed 4" in [row[0] for row in found.values.rows]
    assert found.legend == [("best gain within a KL", "trail")]


def test_a_policy_has_one_colour_and_the_start_is_grey():
    assert colours(["start", "a", "b"]) == {"start": 7, "a": 0, "b": 1}
    assert colours([f"p{i}" for i in range(9)])["p7"] == 0


def test_the_page_says_what_was_compared(page: str):
    seen = text_of(page)
    for words in (
        "dpo, ipo and onpo",
        "3 specs trained on the same files, which they do not read alike, for up to 64 steps, 2 seeds each, from "
        "demo:smollm2 with LoRA, r 8, and judged by vader on 24 held-out prompts",
        "onpo was trained on this very judge, dpo and ipo were not.",
        "data.prompts_per_round is not for dpo: it draws no completions (likewise ipo).",
        "Answers cut at the token limit: start 33 %, dpo 33 %, ipo 33 % and onpo 33 %.",
        "onpo trained on the judge",
        "48 of 64",
        "Confidence in the ranking: onpo above dpo ",
        "Mean P(row's answer is better than the column's)".replace("'", "&#39;"),
        "Bold: the interval leaves ½ out. Among many cells some are bold by chance.",
        "onpo prompts 100 10 90 31 666666666666",
        "24 held-out prompts were answered of the 31 different ones of data.validation; 3 were left out, as data.train "
        "has them, too; 4 were not asked for (--prompts).",
        "kl.beta 0.1 – –",
        "oracle.raters – – sentiment, brevity",
        "a tie counts ½, be it that the judge sees no difference, or that the answers are equal",
        "The KL divergence is exact over the vocabulary for each next token, summed over the tokens of an answer",
        "trainings 9 min 30 s, answers 2 min 10 s, judgements 20 s, all of it 12 min 0 s.",
        "command nashtune compare dpo ipo onpo",
        "0.000 by definition",
        "2 seeds: ",
        "One score per policy (Bradley–Terry) explains all of the log-odds but a share of",
        "onpo 0 48 123 456 96 96 1 min 35 s 1 min 2 s 2 007 1.25 100 %",
        "judge : name : vader",
    ):
        assert words in seen, words


def test_answers_come_with_their_judgements(page: str, folder: Path):
    data = data_of(page)
    assert data["policies"] == list(POLICIES) and data["seeds"] == [0, 1] and len(data["entries"]) == 48
    entry = next(one for one in data["entries"] if one["s"] == 1 and data["texts"][one["q"]].startswith("Prompt 5 "))
    assert data["texts"][entry["a"][2]["t"]].startswith("ipo with seed 1 answers 5 ")
    assert entry["a"][0]["d"].startswith("reward ") and "log π/π_start" in entry["a"][0]["d"]
    rows = pq.read_table(folder / "judgements.parquet").to_pylist()
    known = [
        one["p"] for one in rows if (one["seed"], one["prompt"], one["first"], one["second"]) == (1, 5, "dpo", "onpo")
    ]
    place = list(combinations(POLICIES, 2)).index(("dpo", "onpo"))
    assert entry["j"][2 * place : 2 * place + 2] == [round(10_000 * p) for p in known]


def test_a_comparison_without_rewards_has_win_rates_on_its_frontier(tmp_path: Path):
    page = render(comparison(tmp_path / "one", prompts=6, seeds=1, rewards=False))
    seen = text_of(page)
    assert "win rate over start" in seen and "one seed: intervals are over prompts alone" in seen.lower()


def test_the_command_writes_the_index_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = comparison(tmp_path / "one", prompts=4, seeds=1)
    assert main(["report", str(made)]) == 0
    assert capsys.readouterr().out.startswith(f"{made / 'index.html'}   (")
    assert "answers.parquet" in (made / "index.html").read_text()


def test_the_page_of_a_comparison_needs_no_torch(folder: Path, tmp_path: Path):
    code = (
        "import sys; from nashtune.cli.main import main; "
        f"code = main(['report', {str(folder)!r}, '--out', {str(tmp_path / 'page.html')!r}]); "
        "print(code, [one for one in ('torch', 'lightning', 'transformers') if one in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.splitlines()[-1] == "0 []"


def equal(ratings: Ratings, **changed: Any) -> Ratings:
    """The same ratings, of policies that nothing tells apart."""
    wide = Estimate(*(np.full((4, 4), value) for value in (0.5, 0.49, 0.51)))
    return replace(ratings, win_rate=wide, **changed)


def by_name(ratings: Ratings) -> dict[str, Tile]:
    return {one.name.partition(" of ")[0]: one for one in tiles(ratings)}


def test_tiles_show_what_is_sure(ratings: Ratings):
    found = by_name(ratings)
    assert found["highest Elo"].value == "onpo" and " to " in found["highest Elo"].detail
    assert found["Nash average"].value == "onpo" and found["Nash average"].detail == "onpo 1.00 (1.00 to 1.00)"
    assert found["mean win rate"].name == "mean win rate of onpo"


def test_tiles_claim_no_more_than_intervals_allow(ratings: Ratings):
    weight = Estimate(*(np.array([0.0, 0.0, 0.0, value]) for value in (1.0, 0.0, 1.0)))
    unsure = equal(ratings, nash=replace(ratings.nash, weight=weight, determined=False, sure=()))
    found = by_name(unsure)
    assert found["highest Elo"].value == "not determined"
    assert found["highest Elo"].detail.endswith("not told apart from dpo, ipo and start")
    assert (
        found["Nash average"].value == "not determined" and found["Nash average"].detail == "no policy is surely in it"
    )
    named = by_name(replace(unsure, nash=replace(unsure.nash, sure=("ipo",))))
    assert named["Nash average"].detail == "surely in it: ipo"
    mean = ratings.mean_win_rate.value
    assert found["mean win rates"].value == f"{mean.min():.3f} to {mean.max():.3f}"
    figures = {one.name: one for one in rating_figures(unsure)}
    assert figures["rating-nash"].title == "Nash average: not determined"
    assert all(mark.style.startswith("bar pale") for mark in figures["rating-nash"].marks if mark.kind == "rect")


def test_who_beats_the_policy_with_the_highest_elo_is_named(ratings: Ratings):
    best, rock = ratings.policies.index("onpo"), ratings.policies.index("ipo")
    parts = [np.array(part) for part in (ratings.win_rate.value, ratings.win_rate.low, ratings.win_rate.high)]
    for part, (there, back) in zip(parts, ((0.3, 0.7), (0.2, 0.6), (0.4, 0.8)), strict=True):
        part[best, rock], part[rock, best] = there, back
    beaten = replace(ratings, win_rate=Estimate(*parts))
    assert by_name(beaten)["highest Elo"].value == "onpo, but ipo beats it (0.70)"
    dpo = ratings.policies.index("dpo")
    parts[1][best, dpo], parts[2][dpo, best] = 0.45, 0.55
    detail = by_name(replace(ratings, win_rate=Estimate(*parts)))["highest Elo"].detail
    assert detail.endswith("not told apart from dpo, but ipo beats it (0.70)")


def test_the_cyclic_share_is_not_determined_where_noise_makes_as_much(ratings: Ratings):
    found = by_name(replace(ratings, cyclicity=replace(ratings.cyclicity, noise=0.325, chance=0.9)))["cyclic share"]
    share = f"{float(ratings.cyclicity.share.value):.3f}"
    assert (found.value, found.detail) == ("not determined", f"{share} of the log-odds; noise alone makes 0.325")
    found = by_name(replace(ratings, cyclicity=replace(ratings.cyclicity, noise=0.01, chance=0.001)))["cyclic share"]
    assert found.value == share
    assert "cyclic share" not in by_name(replace(ratings, cyclicity=replace(ratings.cyclicity, triples=0)))


def test_without_anything_to_resample_nothing_is_determined(tmp_path: Path):
    made = comparison(tmp_path / "one", prompts=1, seeds=1)
    ratings = Ratings.from_dict(json.loads((made / "comparison.json").read_text())["ratings"])
    assert {one.value for one in tiles(ratings) if one.name != "mean win rates"} == {"not determined"}
    page = render(made)
    assert "Without intervals nothing is told apart, and no cell is bold." in text_of(page)
    assert 'class="win sure' not in page and 'class="loss sure' not in page


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (1, "Of 6 pairs of these very weights, were they equally good, about 0.3 would be bold by chance."),
        (2, "Among many cells some are bold by chance."),
        (3, "Of 6 pairs of equal policies about 0.3 would be bold by chance."),
    ],
)
def test_what_is_bold_by_chance_is_said_as_far_as_it_is_known(ratings: Ratings, seeds: int, expected: str):
    assert win_matrices(replace(ratings, seeds=seeds))[0].about.endswith(expected)


def test_the_fixed_points_of_the_scales_have_no_intervals(ratings: Ratings):
    elo = {one.name: one for one in rating_figures(ratings)}["rating-elo"].values
    assert elo is not None and ["start", "1000", ""] in elo.rows
    assert ratings.frontier is not None
    values = frontier_figure(ratings, ratings.frontier, [0, 1]).values
    assert values is not None and values.rows[0][:3] == ["start", "0", ""]


def ticks(figure: Figure) -> list[float]:
    """Labels of an x axis."""
    texts = [mark for mark in figure.marks if mark.at.get("text-anchor") == "middle"]
    return [float(mark.text.replace("−", "-")) for mark in texts]


def test_one_interval_does_not_set_an_axis():
    points = [Point(str(i), 0.1 * i, 0.5, (0.1 * i - 0.05, 0.1 * i + 0.05)) for i in range(4)]
    plane = Plane(x_name="x", y_name="y")
    around = scatter_figure("a", "A", points, plane, about="")
    long = scatter_figure("a", "A", [*points[:3], replace(points[3], x_ends=(-9.0, 9.0))], plane, about="")
    assert -0.1 <= min(ticks(long)) and max(ticks(long)) <= 0.4
    assert [sum(mark.style.startswith("arrow") for mark in one.marks) for one in (around, long)] == [0, 2]
    assert long.values is not None and long.values.rows[3][2] == "−9.000 to 9.000"
    zero = scatter_figure("a", "A", points, replace(plane, from_zero=True), about="")
    assert min(ticks(around)) < 0 == min(ticks(zero))
    assert not any(mark.style.startswith("arrow") for mark in zero.marks)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "vader", "scale": 5.0}, "vader"),
        ({"name": "raters", "raters": ["sentiment", "brevity"]}, "raters (sentiment and brevity)"),
        ({"name": "reward_model", "path": "models/judge"}, "reward_model (path models/judge)"),
        ({"name": "endpoint", "prompt": "x" * 100, "model": "m"}, "endpoint (model m)"),
    ],
)
def test_the_judge_is_named_with_what_it_is_made_of(settings: dict[str, Any], expected: str):
    assert judge(settings) == expected


def test_a_file_of_before_says_no_more_than_it_holds(tmp_path: Path):
    made = comparison(tmp_path / "one", prompts=4, seeds=1)
    result = json.loads((made / "comparison.json").read_text())
    for name in ("data", "differs", "made", "phases", "warnings"):
        del result[name]
    (made / "comparison.json").write_text(json.dumps(result))
    page = render(made)
    assert "3 specs trained on the same files for up to 64 steps" in text_of(page) and 'id="data"' not in page


def test_pages_of_the_trainings_are_linked(tmp_path: Path):
    made = comparison(tmp_path / "one", prompts=4, seeds=2)
    assert "nashtune report one/runs/dpo/seed-0" in render(made)
    run = made / "runs" / "ipo" / "seed-1"
    run.mkdir(parents=True)
    (run / "report.html").write_text("")
    assert 'ipo <a href="runs/ipo/seed-1/report.html">seed 1</a>.' in render(made)


def test_answers_judged_anew_name_their_comparison(tmp_path: Path):
    whole = comparison(tmp_path / "four-001", prompts=4, seeds=1)
    page = render(comparison(whole / "judges" / "vader", prompts=4, seeds=1))
    assert "comparison · four-001 / vader" in text_of(page) and 'href="../../index.html"' in page


@pytest.mark.parametrize("whole", [True, False])
def test_rewards_are_shown_without_a_kl_divergence(tmp_path: Path, whole: bool):
    made = comparison(tmp_path / "one", prompts=4, seeds=1)
    result = json.loads((made / "comparison.json").read_text())
    frontier = result["ratings"]["frontier"]
    if whole:  # as it is without answers' log-probs at temperature 1
        frontier["kl"] = {name: [None] * 4 for name in ("value", "low", "high")}
    else:
        result["ratings"]["frontier"] = None
    (made / "comparison.json").write_text(json.dumps(result))
    page = render(made)
    rows = pq.read_table(made / "answers.parquet").to_pylist()
    mean = np.mean([one["reward"] for one in rows if one["policy"] == "onpo"])
    assert 'id="frontier"' not in page and "KL to start" not in page
    assert f"<td>{mean:.3f}<{'small' if whole else '/td'}>" in page


def test_the_frontier_is_a_staircase():
    assert staircase([(1.0, 0.5), (0.0, 0.0), (2.0, 0.75)]) == [(0, 0), (1, 0), (1, 0.5), (2, 0.5), (2, 0.75)]


def test_a_staircase_never_goes_down_and_begins_at_zero():
    assert staircase([(-0.1, 0.6), (0.0, 0.5), (1.0, 0.7)]) == [
        (0.0, 0.5),
        (0.0, 0.5),
        (0.0, 0.6),
        (1.0, 0.6),
        (1.0, 0.7),
    ]


def test_long_answers_are_left_out_and_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nashtune.html.room.MOST_BYTES", 10_000)
    page = render(folder)
    (shown,) = re.findall(r"<li>(\d+) of 24 prompts are on this page", page)
    assert 0 < int(shown) < 24 and len(data_of(page)["entries"]) == 2 * int(shown)


def test_verdicts_are_counted_among_what_a_page_can_hold(monkeypatch: pytest.MonkeyPatch, folder: Path):
    names = tuple(f"p{i}" for i in range(24))
    said = {"reward": -0.5, "logp": -9.0, "logp_start": -8.5, "kl": 0.2, "finished": False, "tokens": 3, "seed": 0}
    answers = [
        {**said, "policy": name, "prompt": n, "prompt_text": f"Prompt {n}", "text": f"{name} says {n}"}
        for name in names
        for n in range(100)
    ]
    verdicts = [
        {"seed": 0, "prompt": n, "first": a, "second": b, "order": order, "p": 0.1234}
        for n in range(100)
        for a, b in combinations(names, 2)
        for order in ("given", "swapped")
    ]
    found = read_comparison(folder)
    many = replace(found, ratings=replace(found.ratings, policies=names), answers=answers, verdicts=verdicts)
    monkeypatch.setattr("nashtune.html.room.MOST_BYTES", 300_000)
    data = answers_of_comparison(many).as_data()
    assert 20 < len(data["entries"]) < 100 and len(data["entries"][0]["j"]) == 24 * 23
    assert 200_000 < len(json.dumps(data, separators=(",", ":"))) <= 300_000


def test_a_spec_in_which_nothing_was_trained_is_no_rival_and_says_so(tmp_path: Path):
    made = comparison(tmp_path / "one", prompts=12)
    result = json.loads((made / "comparison.json").read_text())
    for cost in result["costs"]:
        if cost["policy"] == "onpo" or (cost["policy"], cost["seed"]) == ("ipo", 1):
            cost |= {"steps": 0, "untrained": "all tied", "wall_seconds": None, "lr_share": None}
    (made / "comparison.json").write_text(json.dumps(result))
    seen = text_of(render(made))
    assert "onpo nothing was trained, trained on the judge" in seen
    assert "ipo nothing was trained with seed 1" in seen
    assert "onpo 1 (nothing was trained) 0" in seen
    ratings = Ratings.from_dict(result["ratings"])
    nothing = Estimate(*(np.full(4, np.nan) for _ in range(3)))
    alone = replace(ratings, win_rate=Estimate(*(np.full((4, 4), np.nan) for _ in range(3))), mean_win_rate=nothing)
    assert "onpo" in tiles(alone)[0].detail and "dpo" in tiles(alone)[0].detail
    assert tiles(alone, ["start", "dpo", "ipo"])[0].value == "onpo"


def test_a_comparison_that_goes_on_is_refused(tmp_path: Path, refused: Callable[..., str]):
    made = comparison(tmp_path / "one", prompts=4, seeds=1)
    (made / "comparison.json").unlink()
    assert f"has not ended, there is no comparison.json; go on with: nashtune compare --run_dir {made}" in refused(
        "report", str(made)
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("comparison.json", "{}", "is not what this version writes"),
        ("comparison.json", "[", "is torn or was altered"),
        ("answers.parquet", "x", "is missing or torn"),
    ],
)
def test_a_torn_file_is_named(tmp_path: Path, name: str, text: str, expected: str):
    made = comparison(tmp_path / "one", prompts=4, seeds=1)
    (made / name).write_text(text)
    with pytest.raises(InputError, match=expected):
        render(made)

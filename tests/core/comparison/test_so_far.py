"""Comparisons with policies that are missing: not trained yet, or trained on nothing. What there is is rated."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nashtune.cli.main import main
from nashtune.comparison import runner
from nashtune.comparison.missing import NOT_BEGUN, STOPPED, trainings
from nashtune.comparison.rate import rate
from nashtune.comparison.ratings import Ratings
from nashtune.errors import InputError
from nashtune.pipeline import fit_command

SO_FAR = Path("out/so_far/3-of-4")


def seen(page: Path) -> str:
    """What a reader sees, without the answers."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


@pytest.fixture
def stopped(again: Path) -> Path:
    """The comparison as it was before its last training began, and before anything was answered."""
    shutil.rmtree(again / "out/runs/online_dpo/seed-1")
    for name in ("answers.parquet", "judgements.parquet", "comparison.json", "index.html"):
        (again / "out" / name).unlink()
    shutil.rmtree(again / "out/journal")
    return again


def test_what_there_is_is_rated_and_the_page_says_first_what_is_missing(stopped, whole, monkeypatch, capsys):
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained"))
    assert main(["compare", "--run_dir", "out", "--so_far"]) == 0
    assert "page:    out/so_far/3-of-4/index.html" in capsys.readouterr().out
    lacking = (
        "this comparison has not ended: 1 of 4 trainings are missing, online_dpo with seed 1 (not trained yet). "
        "Everything here is of the start and the 3 policies that there are, and may change"
    )
    figures = json.loads((SO_FAR / "comparison.json").read_text())
    assert figures["warnings"][0] == figures["remarks"][0] == lacking
    assert figures["missing"] == [{"policy": "online_dpo", "seed": 1, "why": NOT_BEGUN, "untrained": False}]
    page = seen(SO_FAR / "index.html")
    assert page.index(lacking[1:]) < page.index("comparison · out / 3-of-4") < page.index("By Elo.")
    assert page.count(lacking[1:]) == 1
    assert not (stopped / "out/index.html").exists() and not (stopped / "out/answers.parquet").exists()
    ratings = Ratings.from_dict(figures["ratings"])
    assert (ratings.seeds, ratings.comparisons, ratings.unanswered) == (2, 5 * (3 + 1), 0)
    assert {(one["policy"], one["seed"]) for one in figures["costs"]} == {("dpo", 0), ("dpo", 1), ("online_dpo", 0)}
    answers = pq.read_table(SO_FAR / "answers.parquet").to_pylist()
    expected = pq.read_table(whole / "out/answers.parquet").to_pylist()
    assert answers == [one for one in expected if (one["policy"], one["seed"]) != ("online_dpo", 1)]
    report = ["report", str(SO_FAR), "--out", "page.html"]
    assert main(report) == 0
    assert lacking[1:] in seen(Path("page.html"))


def test_the_comparison_goes_on_from_it_as_if_nobody_had_looked(stopped, whole, same_process):
    assert main(["compare", "--run_dir", "out", "--so_far"]) == 0
    before = (SO_FAR / "index.html").read_bytes()
    assert main(["compare", "--run_dir", str(SO_FAR)]) == 0  # the folder names the comparison
    for name in ("answers.parquet", "judgements.parquet"):
        assert (stopped / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    assert json.loads((stopped / "out/comparison.json").read_text())["missing"] == []
    assert (SO_FAR / "index.html").read_bytes() == before


def test_one_seed_alone(stopped):
    """The other seed has no policy: nothing of it is rated, not even the start."""
    shutil.rmtree("out/runs/dpo/seed-1")
    assert main(["compare", "--run_dir", "out", "--so_far"]) == 0
    figures = json.loads(Path("out/so_far/2-of-4/comparison.json").read_text())
    assert (figures["seeds"], figures["ratings"]["seeds"]) == ([0], 1)
    assert "dpo with seed 1 (not trained yet), online_dpo with seed 1" in figures["warnings"][0]
    shutil.rmtree("out/runs/online_dpo")
    assert main(["compare", "--run_dir", "out", "--so_far"]) == 0
    figures = json.loads(Path("out/so_far/1-of-4/comparison.json").read_text())
    assert (figures["specs"], figures["ratings"]["policies"]) == (["dpo"], ["start", "dpo"])


def test_what_is_refused(stopped, refused):
    assert "takes nothing beside its folder" in refused("compare", "dpo", "--config", "run.yaml", "--so_far")
    assert "takes nothing beside its folder" in refused("compare", "--run_dir", "out", "--so_far", "--judge", "vader")
    assert "or have what there is rated: nashtune compare --run_dir out --so_far" in refused("report", "out")
    shutil.rmtree("out/runs")
    assert "no training has ended with a model yet" in refused("compare", "--run_dir", "out", "--so_far")


def test_nothing_is_missing(again, refused):
    assert "all 4 trainings of out have ended" in refused("compare", "--run_dir", "out", "--so_far")


def test_why_a_policy_is_missing(tmp_path):
    runs = tmp_path / "runs"
    (runs / "a/seed-0/export").mkdir(parents=True)
    (runs / "b/seed-0/checkpoints").mkdir(parents=True)
    (runs / "b/seed-0/checkpoints/step=3.ckpt").touch()
    (runs / "c/seed-0").mkdir(parents=True)
    (runs / "c/seed-0/report.json").write_text(json.dumps({"untrained": "no round gave anything to train on"}))
    found = trainings(["a", "b", "c", "d"], [0], tmp_path)
    assert found.done == (("a", 0),)
    assert [(one.policy, one.why, one.untrained) for one in found.missing] == [
        ("b", STOPPED, False),
        ("c", "no round gave anything to train on", True),
        ("d", NOT_BEGUN, False),
    ]
    assert found.ended == [("a", 0), ("c", 0)]


@pytest.mark.parametrize("report", [b'{"untr', b"[]", b"\xff"])
def test_a_report_that_cannot_be_read_is_named_with_the_next_step(tmp_path, report):
    run = tmp_path / "runs/a/seed-0"
    run.mkdir(parents=True)
    (run / "report.json").write_bytes(report)
    with pytest.raises(InputError, match=r"report\.json: it is not there, was cut short or altered; .* delete the"):
        trainings(["a"], [0], tmp_path)


def test_a_training_in_which_nothing_was_trained_is_seen_and_not_rated(pit, same_process, monkeypatch, capsys):
    monkeypatch.setattr(runner, "rate", partial(rate, resamples=50))
    command = ["compare", "dpo", "online_dpo", "--config", "run.yaml", "--run_dir", "out", "--steps", "2"]
    command += ["--spec.schedule.rounds", "1", "--spec.oracle.rules", "[regex:never]", "--prompts", "3"]
    command += ["--judge", "rules", "--judge.rules", "[length]"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert re.search(r"judge:   \d+ of 3 pairs of answers tie, and 0 have another winner in the other order", shown)
    assert "train 2/2 online_dpo, seed 0: nothing was trained, and it is not rated; the comparison goes on" in shown
    assert "online_dpo (nothing was" in shown
    figures = json.loads(Path("out/comparison.json").read_text())
    why = "online_dpo: nothing was trained with seed 0: no round gave anything to train on (dropped: 8 tie)"
    assert figures["warnings"][0].startswith(why)
    assert not any("online_dpo has spent" in one for one in figures["remarks"])
    (cost,) = (one for one in figures["costs"] if one["policy"] == "online_dpo")
    assert (cost["steps"], cost["untrained"]) == (0, "no round gave anything to train on (dropped: 8 tie)")
    assert cost["generations"] == 16
    assert figures["ratings"]["elo"]["rating"]["value"][2] is None
    page = seen(Path("out/index.html"))
    assert why in page
    assert "online_dpo nothing was trained" in page
    assert "0 (nothing was trained) 0 0 16" in page
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained again"))
    assert main(["compare", "--run_dir", "out"]) == 0
    assert "online_dpo, seed 0: nothing was trained before: no round" in capsys.readouterr().out


def test_nothing_was_trained_at_all(pit, same_process, refused):
    command = ["compare", "online_dpo", "--config", "run.yaml", "--run_dir", "out", "--steps", "2"]
    command += ["--spec.schedule.rounds", "1", "--spec.oracle.rules", "[regex:never]", "--prompts", "3"]
    assert "none of the 1 trainings has trained anything, so there is nothing to compare: online_dpo" in refused(
        *command
    )

"""Another judge reads answers that are there already: nothing is trained or sampled for it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nashtune.cli.main import main
from nashtune.comparison import answers
from nashtune.pipeline import fit_command

ANOTHER = ("compare", "--run_dir", "out", "--judge", "rules", "--judge.rules", "[brevity]")


@pytest.fixture
def only_judging(monkeypatch):
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr(answers.PolicySampler, "sample", lambda *args, **options: pytest.fail("sampled again"))


def test_it_has_a_folder_of_its_own(again, only_judging, capsys):
    before = {name: (again / "out" / name).read_bytes() for name in ("comparison.yaml", "comparison.json")}
    assert main(list(ANOTHER)) == 0
    place = Path("out/judges/rules")
    assert f"page:    {place / 'index.html'}" in capsys.readouterr().out
    assert {name: (again / "out" / name).read_bytes() for name in before} == before
    own, other = (json.loads((folder / "comparison.json").read_text()) for folder in (Path("out"), place))
    assert other["judge"]["rules"] == ["brevity"]
    assert other["trained_on_judge"] == []
    assert other["phases"]["judging_s"] > 0
    assert other["phases"]["training_s"] == own["phases"]["training_s"]
    texts = [pq.read_table(folder / "answers.parquet").column("text").to_pylist() for folder in (Path("out"), place)]
    assert texts[0] == texts[1]
    scores = pq.read_table(place / "answers.parquet").to_pylist()
    assert all(one["reward"] == pytest.approx(-len(one["text"].split()), abs=3) for one in scores)
    assert main(list(ANOTHER)) == 0, "the same judge once more"
    assert main(["compare", "--run_dir", str(place)]) == 0, "its folder alone"
    assert [one.name for one in Path("out/judges").iterdir()] == ["rules"]
    assert main([*ANOTHER[:-1], "[distinct_2]"]) == 0
    assert sorted(one.name for one in Path("out/judges").iterdir()) == ["rules", "rules-2"]
    assert main(["report", str(place)]) == 0


def test_the_judge_of_the_comparison_stays_in_its_folder(again, only_judging):
    assert main([*ANOTHER[:-1], "[length, distinct_1]"]) == 0
    assert not Path("out/judges").exists()


def test_other_settings_do_not_come_with_it(again, command, refused):
    assert "--run_dir alone goes on with" in refused(*ANOTHER, "--seeds", "3")
    said = refused(*command, "--judge", "rules", "--judge.rules", "[brevity]")
    assert "to have another judge read the same answers: nashtune compare --run_dir out --judge NAME" in said


def test_a_check_trains_nothing(pit, capsys):
    command = ["compare", "dpo", "online_dpo", "--config", "run.yaml", "--steps", "3", "--seeds", "2", "--check"]
    assert main([*command, "--run_dir", "out", "--spec.schedule.rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert not Path("out").exists()
    assert "note: dpo does not read schedule.rounds" in shown
    dpo, game = (line.split() for line in shown.splitlines() if "of 8 " in line and not line.startswith("note"))
    assert dpo == ["dpo", "8", "of", "8", "pairs", "8", "3", "0"]
    assert game == ["online_dpo", "8", "of", "8", "prompts", "8", "3", "16"]
    assert "4 trainings, 2 of each; none was begun" in shown


def test_a_first_round_that_is_more_than_the_budget_is_said(pit, capsys):
    """8 prompts make 4 steps of a round; 1 is wanted."""
    command = ["compare", "online_dpo", "--config", "run.yaml", "--steps", "1", "--check"]
    assert main([*command, "--spec.schedule.rounds", "1"]) == 0
    said = "online_dpo draws 16 completions in its first round, which are enough for 4 steps, and takes 1: draw fewer"
    assert said in capsys.readouterr().out

"""What a run says at its end: of the judge that it trained, and of its weights where the end fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch.nn.functional import logsigmoid

from lab import Lab, write_rows
from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.oracles.reward_ensemble import RewardEnsembleOracle
from nashtune.training.finish import weights_are_whole

SHORT = ("--trainer.max_epochs", "4")


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text())
    return found


@pytest.mark.parametrize("members", [1, 3])
def test_a_reward_model_reports_how_it_orders_held_out_pairs(
    lab: Lab, members: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = lab.fit(*SHORT, "--spec.head.members", str(members), "--spec.head.normalise", "gain_bias", spec="reward_bt")
    printed = capsys.readouterr().out
    found = report(run)
    verdicts = found["verdicts"]
    assert (verdicts["pairs"], verdicts["prompts"], verdicts["members"]) == (6, 6, members)
    if members == 1:
        assert verdicts["accuracy"]["mean"] == pytest.approx(found["held_out"]["accuracy"])
    assert verdicts["calibration"]["log_loss"] == pytest.approx(of_the_folder(run, lab), rel=1e-4)
    assert verdicts["calibration"]["log_loss"] != pytest.approx(found["held_out"]["loss"], rel=1e-2)
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in rows(lab)]
    assert verdicts["longer_is_better"]["mean"] == pytest.approx(sum(longer) / 6), "bytes are tokens here"
    assert ("agreement" in verdicts) == (members > 1)
    for text in ("longer is better", "ECE", "reliability.png"):
        assert text in printed
    assert "before" not in printed, "a score head answers nothing"
    for name in ("reliability.png", "curves.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    exported = json.loads((run / "export" / "nashtune_reward.json").read_text())
    assert found["normaliser"] == {"gain": exported["gain"], "bias": exported["bias"]}
    assert exported["gain"] != [1.0] * members
    card = (run / "export" / "README.md").read_text()
    for text in (f"Members: {members}", "| pair accuracy |", "preferring the longer", "(ECE)", "6 held-out pairs"):
        assert text in card, text


def of_the_folder(run: Path, lab: Lab) -> float:
    """Bradley-Terry loss of held-out rows under the oracle that reads the folder."""
    oracle = RewardEnsembleOracle(path=str(run / "export"), device="cpu")
    oracle.prepare()
    prompts = [row["prompt"] for row in rows(lab)]
    chosen, rejected = (oracle.score(prompts, [row[side] for row in rows(lab)]).mean for side in ("chosen", "rejected"))
    return float(-logsigmoid(chosen - rejected).mean())


def rows(lab: Lab) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lab.folder / "validation.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_the_commands_that_measure_print_the_same_table(
    lab: Lab, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = lab.fit(*SHORT, spec="reward_bt")
    fitted = capsys.readouterr().out
    split = () if command == "validate" else ("--data.test", "validation.jsonl")
    checkpoint = next((run / "checkpoints").glob("step=*.ckpt"))
    assert main([command, "--ckpt_path", str(checkpoint), *split]) == 0
    lines = {line for line in capsys.readouterr().out.splitlines() if line.startswith("│") and line.count("│") == 4}
    assert len(lines) > 8 and lines <= set(fitted.splitlines())


def test_ranked_lists_are_reported_by_list(lab: Lab) -> None:
    answers = ["Yes, lovely!", "Yes", "No, not at all", "No"]
    lists: list[dict[str, object]] = [
        {"prompt": f"Do you like {i}?", "responses": answers[: 2 + i % 3], "scores": [4, 3, 2, 1][: 2 + i % 3]}
        for i in range(9)
    ]
    for name in ("train", "validation"):
        write_rows(lab.folder / f"{name}.jsonl", lists)
    run = lab.fit(*SHORT, spec="reward_bt_ranked")
    verdicts = report(run)["verdicts"]
    assert (verdicts["lists"], verdicts["pairs"], verdicts["top_1"]["lists"]) == (9, 3 * (1 + 3 + 6), 9)
    held_out = report(run)["held_out"]
    assert verdicts["accuracy"]["mean"] == pytest.approx(held_out["pairs_right"])
    assert "best_over_worst" in held_out and "accuracy" not in held_out


def test_equal_scores_are_neither_trained_nor_measured(lab: Lab) -> None:
    answers = ["Yes, lovely!", "Yes", "No, not at all", "No"]
    for name, scores in (("train", [1, 0, 0, 0]), ("validation", [2, 2, 1, 1])):
        some: list[dict[str, object]] = [{"prompt": f"Do you like {i}?", "responses": answers} for i in range(6)]
        write_rows(lab.folder / f"{name}.jsonl", [{**row, "scores": scores} for row in some])
    found = report(lab.fit(*SHORT, spec="reward_bt_ranked"))
    assert (found["verdicts"]["lists"], found["verdicts"]["pairs"]) == (6, 6 * 4)
    assert found["verdicts"]["accuracy"]["mean"] == pytest.approx(found["held_out"]["pairs_right"])
    assert "6 ranked lists have equal scores; these answers are not compared" in found["data"]["train"]["notes"]


def test_a_preference_model_reports_both_orders(lab: Lab) -> None:
    run = lab.fit(*SHORT, spec="preference_pm")
    found = report(run)
    verdicts = found["verdicts"]
    assert verdicts["kind"] == "comparisons" and verdicts["pairs"] == 6
    both = (verdicts["accuracy_first"]["mean"] + verdicts["accuracy_second"]["mean"]) / 2
    assert both == pytest.approx(found["held_out"]["accuracy"])
    assert 0 <= verdicts["position_bias"]["flips"]["mean"] <= 1
    assert "verdict changes with the order" in (run / "export" / "README.md").read_text()


def test_a_run_without_held_out_rows_has_nothing_to_say(lab: Lab) -> None:
    run = lab.fit("--data.validation", "null", spec="reward_bt")
    assert "verdicts" not in report(run) and not (run / "reliability.png").exists()
    assert "What it prefers" not in (run / "export" / "README.md").read_text()


def test_weights_are_promised_where_there_are_some(tmp_path: Path) -> None:
    """A run that trained nothing has saved none."""
    said = []
    for _ in range(2):
        with pytest.raises(InputError) as caught, weights_are_whole(tmp_path):
            raise InputError("the judge is gone")
        said.append(str(caught.value))
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "step=4.ckpt").touch()
    assert said == [(gone := "the judge is gone"), f"{gone}. The trained weights are whole: nashtune export {tmp_path}"]

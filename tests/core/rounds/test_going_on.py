"""Taking a game up again: with what it was begun with, or not at all; and reports that are about these weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from killing import killed_run
from lab import Lab, pair_rows, write_rows
from nashtune.journal.records import read_completions
from nashtune.journal.store import Journal

TWO = ("--spec.schedule.rounds", "2")


def report(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "report.json").read_text())
    return found


def test_a_game_without_held_out_prompts_ends_without_a_comparison(
    game: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    run = game.fit(*TWO, "--data.validation", "null", spec="inpo")
    assert "win_rates" not in report(run) and (run / "export").is_dir()
    assert "so the policies are not compared" in capsys.readouterr().out


def test_a_checkpoint_does_not_go_on_in_another_folder(game: Lab, refused: Callable[..., str]) -> None:
    run = game.fit(*TWO, "--trainer.max_steps", "1", spec="inpo")
    checkpoint = next((run / "checkpoints").glob("*.ckpt"))
    message = refused("fit", "--ckpt_path", str(checkpoint), "--run_dir", str(game.folder / "elsewhere"))
    assert "of its own run folder" in message
    assert not (game.folder / "elsewhere").exists()


def test_a_resumed_run_reports_its_own_answers_and_not_those_of_an_earlier_stop(game: Lab) -> None:
    """A stop in the middle has answers of the live weights, in the place that a round's policy takes later."""
    whole = game.fit(*TWO, spec="onpo", run="whole")
    part = game.fit(*TWO, "--trainer.max_steps", "3", spec="onpo", run="part")
    resumed = game.fit("--ckpt_path", "last", "--trainer.max_steps", "-1", spec=None, run="part")
    assert part == resumed
    for name in ("steps", "rounds", "win_rates"):
        assert report(resumed)[name] == report(whole)[name], name


def test_a_run_whose_journal_is_gone_does_not_go_on(game: Lab, refused: Callable[..., str]) -> None:
    run = game.fit(*TWO, "--trainer.max_steps", "1", spec="inpo")
    shutil.rmtree(run / "journal")
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "-1")
    assert "the run's journal is gone" in message and not (run / "journal").exists()


@pytest.mark.parametrize(
    "option",
    [("limit_train_batches", "2"), ("val_check_interval", "0.5"), ("fast_dev_run", "true"), ("max_steps", "0")],
)
def test_trainer_options_that_mean_nothing_in_a_game_are_refused(
    game: Lab, refused: Callable[..., str], option: tuple[str, str]
) -> None:
    message = refused("fit", "--spec", "inpo", "--config", str(game.run_file), f"--trainer.{option[0]}", option[1])
    assert f"trainer.{option[0]}" in message


def test_other_sampling_settings_get_answers_of_their_own(game: Lab) -> None:
    run = game.fit(*TWO, "--trainer.max_steps", "1", spec="inpo")
    again = game.fit("--ckpt_path", "last", "--trainer.max_steps", "-1", "--samples.prompts", "2", spec=None)
    assert run == again
    assert report(again)["win_rates"]["prompts"] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--data.prompts_per_round", "3", "data.prompts_per_round: None there, 3 here"),
        ("--seed_everything", "7", "seed_everything: 0 there, 7 here"),
        ("--trainer.precision", "bf16-mixed", "trainer.precision: 32-true there, bf16-mixed here"),
        ("--data.batch_size", "2", "3 rows of an optimiser step there, 2 here"),
    ],
)
def test_a_run_that_was_begun_with_something_else_is_refused(
    game: Lab, refused: Callable[..., str], option: str, value: str, named: str
) -> None:
    run = game.fit(*TWO, "--trainer.max_steps", "1", spec="inpo")
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "-1", option, value)
    assert named in message


def test_other_prompts_are_refused_before_the_first_checkpoint_too(game: Lab, refused: Callable[..., str]) -> None:
    command = ["fit", "--spec", "inpo", "--config", str(game.run_file), "--run_dir", str(game.folder / "run"), *TWO]
    died = killed_run(command, str(game.folder), "nashtune.rounds.judge:write_judgements", 1, after=False)
    assert died == -9
    write_rows(game.folder / "train.jsonl", [{"prompt": row["prompt"]} for row in pair_rows(8, start=50)])
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(game.folder / "run"))
    assert "data.train: other prompts" in message


def test_a_weight_of_nothing_is_a_weight(game: Lab) -> None:
    """nash_md without a penalty draws from the policy alone; that is not the same as having no opinion."""
    alone = ("--spec.pairing", "iid", *TWO)
    mixed, plain = (
        game.fit("--spec.loss.tau", "0", *alone, spec="nash_md", run="a"),
        game.fit(*alone, spec="inpo", run="b"),
    )
    drawn = [read_completions(Journal(run / "journal"), 1, "policy", 0)[0] for run in (mixed, plain)]
    assert [one.token_ids for one in drawn[0]] == [one.token_ids for one in drawn[1]]


def test_stale_rollouts_are_refused_by_check_and_by_fit(game: Lab, refused: Callable[..., str]) -> None:
    options = ["--config", str(game.run_file), "--spec.schedule.steps", "2", "--data.prompts_per_round", "4"]
    for command in ("check", "fit"):
        message = refused(command, "--spec", "nash_md_pg", *options)
        assert "a round makes 16 rollouts, and an optimiser step takes 3" in message


@pytest.mark.parametrize("of", ["previous", "start"])
def test_old_averages_are_dropped(game: Lab, of: str) -> None:
    options = ("--data.prompts_per_round", "1", "--spec.sampler.completions", "3", "--spec.schedule.steps", "4")
    run = game.fit(*options, "--spec.schedule.ema_of", of, spec="nash_ema_pg")
    state = torch.load(next((run / "checkpoints").glob("*.ckpt")), weights_only=True)
    assert set(state["GameData"]["averages"]) == {"ema@3"}


def test_a_spec_that_leaves_its_oracle_open_needs_none_for_a_replay(game: Lab) -> None:
    first = game.fit(*TWO, spec="inpo", run="first")
    text = game.run_file.read_text().replace("distinct_1", "length")
    game.run_file.write_text(text.replace("name: rules", "name: preference").replace("    rules:\n    - length\n", ""))
    again = game.fit(
        *(*TWO, "--spec.sampler", "recorded", "--spec.sampler.path", str(first), "--spec.sampler.completions", "4"),
        *("--spec.sampler.max_new_tokens", "6"),
        spec="inpo",
        run="again",
    )
    assert report(again)["rounds"][0]["pairs"] == report(first)["rounds"][0]["pairs"]  # type: ignore[index]


def test_a_replay_with_another_pairing_says_what_is_missing(game: Lab, refused: Callable[..., str]) -> None:
    first = game.fit(*TWO, spec="inpo", run="first")
    message = refused(
        *("fit", "--spec", "inpo", "--config", str(game.run_file), "--run_dir", str(game.folder / "again"), *TWO),
        *("--spec.sampler", "recorded", "--spec.sampler.path", str(first), "--spec.sampler.completions", "4"),
        *("--spec.sampler.max_new_tokens", "6", "--spec.oracle", "none", "--spec.pairing", "best_worst"),
    )
    assert "no judgement of completions" in message and "spec.pairing" in message


def test_an_oracle_that_answers_a_question_anew_is_paired_as_it_answered(
    game: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tournament may ask for a match again; the pairs come from the answers in their order."""
    draw = torch.Generator().manual_seed(3)

    def toss(self: object, prompts: list[str], first: list[str], second: list[str]) -> torch.Tensor:
        return torch.rand(len(first), generator=draw, dtype=torch.float64).round()

    monkeypatch.setattr("nashtune.oracles.raters.RatersOracle.compare", toss)
    text = game.run_file.read_text()
    game.run_file.write_text(text.replace("name: rules", "name: raters").replace("rules:", "raters:"))
    run = game.fit(*TWO, spec="inpo")
    assert sum(one["pairs"] for one in report(run)["rounds"]) > 0  # type: ignore[index,union-attr]

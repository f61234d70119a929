"""What the end of a reinforcement learning run says of its rounds and of its held-out answers."""

from __future__ import annotations

import json

import pytest

from lab import Lab
from nashtune.journal.records import read_scores
from nashtune.journal.store import Journal

SIZES = (
    *("--spec.schedule.steps", "3", "--data.prompts_per_round", "2", "--spec.sampler.completions", "4"),
    *("--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "2"),
)


def test_rounds_are_what_was_logged_of_their_rollouts(game: Lab) -> None:
    run = game.fit(*SIZES, spec="rloo")
    report = json.loads((run / "report.json").read_text())
    series = game.metrics(run).series
    logged = {"score": "reward", "score_std": "reward_std", "kl_k1": "kl_ref_k1", "kl_k3": "kl_ref_k3", "beta": "beta"}
    for name, metric in logged.items():
        values = [value for _, value in series[f"rollout/{metric}"]]
        assert [one[name] for one in report["rounds"]] == pytest.approx(values, abs=1e-9), name
    for one in report["rounds"]:
        assert (one["rewards"], one["pairs"], one["completions"], one["steps"]) == (8, 8, 8, 4)
        assert one["tokens"] / 8 == pytest.approx(series["rollout/length"][one["round"] - 1][1])
        assert 1 - one["truncated"] / 8 == pytest.approx(series["rollout/finished"][one["round"] - 1][1])
        assert one["variance"] is None, "rules know none"
        assert "judgements" not in one


def test_kl_and_beta_of_every_round_are_known_where_few_steps_were_logged(game: Lab) -> None:
    run = game.fit(*SIZES, "--trainer.log_every_n_steps", "12", spec="rloo")
    rounds = json.loads((run / "report.json").read_text())["rounds"]
    assert [one["steps"] for one in rounds] == [4, 4, 4]
    assert all(one["kl_k3"] >= 0 for one in rounds) and rounds[2]["kl_k3"] > 0
    assert [one["beta"] for one in rounds] == [0.05] * 3


def test_rewards_of_the_start_and_of_now_are_those_of_their_answers(game: Lab) -> None:
    run = game.fit(*SIZES, "--spec.schedule.steps", "1", spec="rloo")
    rewards = json.loads((run / "report.json").read_text())["win_rates"]["rewards"]
    assert list(rewards["policies"]) == ["start", "now"] and rewards["prompts"] == 3
    means = [one["mean"] for one in rewards["policies"].values()]
    assert rewards["change"]["mean"] == pytest.approx(means[1] - means[0])
    assert all(0 <= mean <= 1 for mean in means), "shares of distinct words"
    scored = read_scores(Journal(run / "journal"), 1, 0)
    assert len(scored) == 8, "held-out answers are in no round"

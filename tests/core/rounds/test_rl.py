"""Reinforcement learning on a tiny model: what a run leaves, resume, and what must not change its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from lab import Lab
from nashtune.journal.records import read_completions, read_scores
from nashtune.journal.store import Journal

SIZES = (
    *("--spec.schedule.steps", "3", "--data.prompts_per_round", "2", "--spec.sampler.completions", "4"),
    *("--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2"),
)
SPECS = ["ppo", "rloo", "grpo"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = max((run / "checkpoints").glob("step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
    state: dict[str, torch.Tensor] = torch.load(newest, weights_only=True)["state_dict"]
    return state


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("spec", SPECS)
def test_a_run_trains_in_several_steps_a_round_and_says_what_its_rollouts_were(game: Lab, spec: str) -> None:
    run = game.fit(*SIZES, "--trainer.max_epochs", "2", spec=spec)
    series = game.metrics(run).series
    rounds = [value for _, value in series["train/round"]]
    assert [rounds.count(t) for t in (1.0, 2.0, 3.0)] == [4, 4, 4]  # 8 rollouts in windows of 4, two passes
    assert [step for step, _ in series["rollout/reward"]] == [1, 5, 9]
    assert {"rollout/kl_ref_k1", "rollout/kl_ref_k3", "rollout/length", "rollout/beta"} <= series.keys()
    assert series["rollout/kl_ref_k3"][0][1] == pytest.approx(0.0, abs=1e-6)
    assert series["rollout/sampler_gap"][0][1] < 1e-4
    assert all(value >= 0 for _, value in series["rollout/kl_ref_k3"])


def test_the_journal_holds_rewards_and_log_probs_of_every_answer(game: Lab) -> None:
    run = game.fit(*SIZES, "--trainer.max_epochs", "2", spec="ppo")
    journal = Journal(run / "journal")
    drawn, _ = read_completions(journal, 2, "policy", 0)
    scored = read_scores(journal, 2, 0)
    assert [(one.prompt, one.k) for one in scored] == [(one.prompt, one.k) for one in drawn]
    measured = journal.read_tensors(2, "measured-000001-000000")
    tokens = sum(len(one.token_ids) for one in drawn)
    assert {name: len(values) for name, values in measured.items()} == {
        "old": tokens,
        "old_value": tokens,
        "old_value_end": len(drawn),
        "ref:ref": tokens,
        "rows": len(drawn),
    }


@pytest.mark.parametrize("spec", [*SPECS, "reinforce"])
@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_goes_on_from_the_middle_and_from_the_end_of_an_update(game: Lab, spec: str, stop: int) -> None:
    options = [*SIZES, "--trainer.max_epochs", "2"]
    if spec == "reinforce":  # a round is one step
        options = [*SIZES, "--trainer.accumulate_grad_batches", "4", "--spec.schedule.steps", "6"]
    whole = game.fit(*options, spec=spec, run="whole")
    game.fit(*options, "--trainer.max_steps", str(stop), spec=spec, run="part")
    resumed = game.fit("--ckpt_path", "last", *options, "--trainer.max_steps", "-1", spec=None, run="part")
    assert same(whole, resumed)
    ours, theirs = game.metrics(whole).series, game.metrics(resumed).series
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name] == theirs[name], name


def test_a_controller_that_moves_goes_on_from_the_middle(game: Lab) -> None:
    options = [*SIZES, "--trainer.max_epochs", "2", "--spec.kl", "adaptive", "--spec.kl.beta", "0.1"]
    options += ["--spec.kl.target", "0.001", "--spec.kl.horizon", "20"]
    whole = game.fit(*options, spec="ppo", run="whole")
    betas = [value for _, value in game.metrics(whole).series["rollout/beta"]]
    assert len(set(betas)) == 3, "one move after each round"
    game.fit(*options, "--trainer.max_steps", "7", spec="ppo", run="part")
    resumed = game.fit("--ckpt_path", "last", *options, "--trainer.max_steps", "-1", spec=None, run="part")
    assert same(whole, resumed)
    assert [value for _, value in game.metrics(resumed).series["rollout/beta"]] == betas


@pytest.mark.parametrize("spec", SPECS)
def test_micro_batches_change_nothing_but_speed(game: Lab, spec: str) -> None:
    """Answers of unequal length: a mean of micro-batch means would weigh their tokens differently (trl#2617)."""
    small = game.fit(*SIZES, "--data.batch_size", "1", "--trainer.accumulate_grad_batches", "4", spec=spec, run="small")
    large = game.fit(*SIZES, "--data.batch_size", "4", "--trainer.accumulate_grad_batches", "1", spec=spec, run="large")
    # Adam divides by the size of the gradient: where that is nearly 0 its rounding shows, up to 1 % of a step of 1e-3
    for name, weight in weights(large).items():
        torch.testing.assert_close(weights(small)[name], weight, rtol=1e-4, atol=1e-5)


def test_replaying_a_journal_needs_neither_sampler_nor_oracle(game: Lab) -> None:
    first = game.fit(*SIZES, spec="rloo", run="first")
    again = game.fit(
        *(*SIZES, "--spec.sampler", "recorded", "--spec.sampler.path", str(first), "--spec.sampler.completions", "4"),
        *("--spec.sampler.max_new_tokens", "6", "--spec.oracle", "none"),
        spec="rloo",
        run="again",
    )
    assert same(first, again)


def test_a_replay_may_take_fewer_completions_and_not_more(game: Lab, refused: Callable[..., str]) -> None:
    first = game.fit(*SIZES, spec="rloo", run="first")
    replay = ("--spec.sampler", "recorded", "--spec.sampler.path", str(first), "--spec.sampler.max_new_tokens", "6")
    options = (*SIZES, *replay, "--spec.oracle", "none", "--spec.sampler.completions")
    fewer = game.fit(*options, "2", spec="rloo", run="fewer")
    assert [one["pairs"] for one in json.loads((fewer / "report.json").read_text())["rounds"]] == [4, 4, 4]
    command = ("fit", "--spec", "rloo", "--config", str(game.run_file), "--run_dir", str(game.folder / "more"))
    assert "completions" in refused(*command, *options, "5")


def test_rollouts_are_logged_whatever_the_steps_between_two_rows(game: Lab) -> None:
    run = game.fit(*SIZES, "--trainer.log_every_n_steps", "4", spec="rloo")
    series = game.metrics(run).series
    assert [step for step, _ in series["rollout/reward"]] == [1, 3, 5]
    assert len(series["rollout/beta"]) == 3


@pytest.mark.parametrize("tokens", ["1", "100000"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_first_ratio_of_an_update_is_one_to_the_last_bit(game: Lab, precision: str, tokens: str) -> None:
    """Measured in other micro-batches or passes, bf16 gives log-probs that differ, and a ratio of noise."""
    shown = ("--trainer.precision", precision) if precision != "32-true" else ()
    run = game.fit(*SIZES, *shown, "--data.batch_tokens", tokens, "--data.eval_batch_size", "5", spec="rloo")
    moved = dict(game.metrics(run).series["train/approx_kl"])
    assert [moved[step] for step in (1, 3, 5)] == [0.0, 0.0, 0.0]
    assert all(moved[step] > 0 for step in (2, 4, 6))


def test_the_exported_model_has_no_critic(game: Lab) -> None:
    from nashtune.cli.main import main

    run = game.fit(*SIZES, spec="ppo")
    assert any(name.startswith("critic.") for name in weights(run))
    assert main(["export", str(run), "--out", str(game.folder / "out")]) == 0
    for folder in (run / "export", game.folder / "out"):
        index = json.loads((folder / "config.json").read_text())
        assert index["architectures"][0].endswith("ForCausalLM")


def of_heads(heads: Path) -> tuple[str, ...]:
    oracle = ("--spec.oracle", "reward_ensemble", "--spec.oracle.path", str(heads), "--spec.oracle.members", "3")
    return (*SIZES, *oracle, "--spec.loss.value_init", "reward_model")


def test_a_critic_may_start_as_the_reward_model_and_goes_on_with_the_run(game: Lab, heads: Path) -> None:
    run_file = yaml.safe_load(game.run_file.read_text())
    del run_file["spec"]["oracle"]
    game.run_file.write_text(yaml.safe_dump(run_file))
    options = of_heads(heads)
    whole = game.fit(*options, spec="ppo", run="whole")
    first = Journal(whole / "journal").read_tensors(1, "measured-000000-000000")["old_value"]
    assert bool((first != 0).any()), "the reward model's scores, not zero"
    assert any(name.startswith("critic.model.") for name in weights(whole))
    game.fit(*options, "--trainer.max_steps", "3", spec="ppo", run="part")
    resumed = game.fit("--ckpt_path", "last", *options, "--trainer.max_steps", "-1", spec=None, run="part")
    assert same(whole, resumed)


def test_a_critic_without_a_reward_model_is_refused_before_weights_are_loaded(
    game: Lab, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nashtune.models.policy.HFPolicy.load", lambda *_: pytest.fail("weights were loaded"))
    command = ("fit", "--spec", "ppo", "--config", str(game.run_file), "--run_dir", str(game.folder / "run"))
    assert "value_init: reward_model" in refused(*command, *SIZES, "--spec.loss.value_init", "reward_model")


def test_a_horizon_shorter_than_an_update_is_refused_before_weights_are_loaded(
    game: Lab, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nashtune.models.policy.HFPolicy.load", lambda *_: pytest.fail("weights were loaded"))
    command = ("fit", "--spec", "rloo", "--config", str(game.run_file), "--run_dir", str(game.folder / "run"))
    adaptive = ("--spec.kl", "adaptive", "--spec.kl.beta", "0.1", "--spec.kl.horizon", "1")
    message = refused(*command, *SIZES, *adaptive)
    assert "kl.horizon: 1, and an update has 8 completions" in message and "give more than 1.6" in message


def test_with_lora_the_critic_trains_beside_the_adapter(game: Lab) -> None:
    run = game.fit(*SIZES, "--policy.lora.r", "2", spec="ppo")
    state = weights(run)
    assert {"critic.linear.weight", "critic.linear.bias"} <= state.keys()
    assert bool((state["critic.linear.weight"] != 0).any())
    assert all("lora" in name or name.startswith("critic.") for name in state)


def test_a_score_after_eos_trains_the_critic_there_too(game: Lab) -> None:
    some = (*SIZES, "--spec.sampler.stop", "[a, e, i, o]")  # some answers end by themselves, some do not
    last = game.fit(*some, spec="ppo", run="last")
    after = game.fit(*some, "--spec.loss.score_at", "after_eos", spec="ppo", run="after")
    drawn = [one for t in (1, 2, 3) for one in read_completions(Journal(after / "journal"), t, "policy", 0)[0]]
    assert {one.finish for one in drawn} == {"stop", "length"}
    assert not same(last, after)


def test_without_a_kl_term_nothing_is_penalised(game: Lab) -> None:
    run = game.fit(*SIZES, "--spec.kl", "none", spec="grpo")
    series = game.metrics(run).series
    assert "rollout/beta" not in series and "rollout/kl_ref_k1" in series


def test_a_reinforce_round_of_two_steps_is_refused(game: Lab, refused: Callable[..., str]) -> None:
    message = refused(
        *("fit", "--spec", "reinforce", "--config", str(game.run_file), *SIZES, "--run_dir", str(game.folder / "run"))
    )
    assert "a round is one optimiser step" in message

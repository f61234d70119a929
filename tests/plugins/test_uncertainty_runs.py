"""Uncertainty-aware RLHF on a tiny model, against a tiny ensemble with three heads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml

from lab import Lab, pair_rows, write_rows
from nashtune.journal.records import read_scores
from nashtune.journal.store import Journal

SIZES = (
    *("--data.prompts_per_round", "2", "--data.batch_size", "4", "--trainer.accumulate_grad_batches", "2"),
    *("--spec.sampler.completions", "4", "--spec.sampler.max_new_tokens", "6"),
)
RL = ("--spec.schedule.steps", "3", *SIZES)


@pytest.fixture
def ensemble(lightning_log: None, tmp_path: Path, tiny: Path, heads: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.jsonl", [{"prompt": row["prompt"]} for row in pair_rows(8)])
    run = {
        "policy": {"path": str(tiny)},
        "data": {"train": "train.jsonl", "max_length": 128},
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False},
        "samples": {"prompts": 0},
        "spec": {"optimizer": {"lr": 1e-3}, "oracle": {"path": str(heads), "members": 3}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return Lab(tmp_path, path)


@pytest.mark.loads
@pytest.mark.parametrize("spec", ["uncertainty_rlhf", "uncertainty_rlhf_rloo"])
def test_a_coefficient_for_each_completion(ensemble: Lab, spec: str) -> None:
    run = ensemble.fit(*RL, spec=spec)
    series = ensemble.metrics(run).series
    for name in ("variance", "v", "clipped", "beta", "reward", "kl_ref_k1"):
        assert len(series[f"rollout/{name}"]) == 3 and all(math.isfinite(x) for _, x in series[f"rollout/{name}"])
    scored = read_scores(Journal(run / "journal"), 1, 0)
    variances = torch.tensor([one.variance for one in scored], dtype=torch.float64)
    v = (variances / variances.mean()).clamp(0.1, 10.0)
    assert len({round(x, 9) for x in v.tolist()}) > 4
    assert series["rollout/variance"][0][1] == pytest.approx(float(variances.mean()), rel=1e-6)
    assert series["rollout/v"][0][1] == pytest.approx(float(v.mean()), rel=1e-6)
    assert series["rollout/beta"][0][1] == pytest.approx(0.1 * float(v.mean()), rel=1e-6)


@pytest.mark.loads
@pytest.mark.parametrize("variant", ["exact", "precision"])
def test_the_other_variants_train(ensemble: Lab, variant: str) -> None:
    run = ensemble.fit(*RL, "--spec.kl.variant", variant, spec="uncertainty_rlhf_rloo")
    assert all(math.isfinite(loss) for _, loss in ensemble.metrics(run).series["train/loss"])


@pytest.mark.loads
def test_pairs(ensemble: Lab) -> None:
    run = ensemble.fit(*SIZES, "--spec.schedule.rounds", "2", spec="uncertainty_rlhf_pairwise")
    series = ensemble.metrics(run).series
    assert series["train/loss"][0][1] == pytest.approx(math.log(2.0), abs=1e-5)  # the policy is the reference
    assert all(series[f"train/{name}"][0][1] > 0 for name in ("variance_chosen", "v_rejected"))


@pytest.mark.loads
@pytest.mark.parametrize("spec", ["ppo_uwo", "ppo_lcb"])
def test_penalties_lower_the_reward(ensemble: Lab, spec: str) -> None:
    plain, lowered = (
        ensemble.fit(*RL, "--trainer.max_steps", "1", "--spec.oracle.penalty", penalty, spec=spec, run=f"at-{penalty}")
        for penalty in ("0", "2")
    )
    rewards = [ensemble.metrics(run).series["rollout/reward"][0][1] for run in (plain, lowered)]
    assert rewards[1] < rewards[0]


@pytest.mark.loads
def test_a_resumed_run_keeps_the_running_mean(ensemble: Lab) -> None:
    """Six rounds at once, and the same with a stop in the middle: the last round's coefficients agree."""
    six = ("--spec.schedule.steps", "6", *SIZES, "--save_every", "1", "--spec.optimizer.decay", "constant")
    whole = ensemble.fit(*six, spec="uncertainty_rlhf_rloo", run="whole")
    half = ensemble.fit(*six, "--trainer.max_steps", "3", spec="uncertainty_rlhf_rloo", run="half")
    ensemble.fit("--ckpt_path", "last", "--trainer.max_steps", "-1", spec=None, run="half")
    for name in ("rollout/v", "rollout/beta", "train/loss"):
        assert ensemble.metrics(whole).series[name][-1] == ensemble.metrics(half).series[name][-1]


CONSTANT = '''"""A reward of length whose variance is the same for every completion."""

from nashtune.interfaces import RewardOracle, Rewards


class Constant(RewardOracle):
    """Longer is better, and equally uncertain.

    Args:
        scale: Of the reward.
    """

    gives_variance = True

    def __init__(self, *, scale: float = 0.1) -> None:
        self.scale = scale

    def score(self, prompts, completions):
        """Length."""
        import torch

        mean = torch.tensor([self.scale * len(text) for text in completions], dtype=torch.float64)
        return Rewards(mean=mean, variance=torch.full_like(mean, 0.3))
'''


@pytest.mark.loads
@pytest.mark.parametrize(("plain", "aware"), [("ppo", "uncertainty_rlhf"), ("rloo", "uncertainty_rlhf_rloo")])
def test_with_a_constant_variance_training_is_the_plain_methods_to_the_last_bit(
    ensemble: Lab, monkeypatch: pytest.MonkeyPatch, plain: str, aware: str
) -> None:
    """Step for step: the same losses, the same weights."""
    (ensemble.folder / "constant_oracle.py").write_text(CONSTANT)
    monkeypatch.syspath_prepend(str(ensemble.folder))
    run_file = yaml.safe_load(ensemble.run_file.read_text())
    del run_file["spec"]["oracle"]
    ensemble.run_file.write_text(yaml.safe_dump(run_file))
    same = (*RL, "--trainer.max_epochs", "2", "--spec.oracle", "constant_oracle.Constant", "--spec.kl.beta", "0.1")
    same = (*same, "--allow-import", "constant_oracle")
    optimizer = ("--spec.optimizer.lr", "1e-3", "--spec.optimizer.warmup", "0", "--spec.optimizer.decay", "constant")
    runs = [ensemble.fit(*same, *optimizer, spec=spec, run=spec) for spec in (plain, aware)]
    losses = [ensemble.metrics(run).series["train/loss"] for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    first, second = (torch.load(next((run / "checkpoints").glob("*.ckpt")), weights_only=True) for run in runs)
    assert all(torch.equal(weight, second["state_dict"][name]) for name, weight in first["state_dict"].items())
    assert second["kl"]["running_mean"] == pytest.approx(0.3)

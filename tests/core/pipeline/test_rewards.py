"""The shipped pipelines with reward models: filter -> preference model -> PPO, and ensembles in two forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from killing import killed_run
from nashtune.errors import InputError
from nashtune.oracles.reward_ensemble import RewardEnsembleOracle
from nashtune.oracles.reward_model import RewardModelOracle
from nashtune.pipeline import fit_command

SMALL = ["--stages.ppo.run.spec.sampler.max_new_tokens", "6", "--stages.ppo.run.data.prompts_per_round", "4"]
SMALL += ["--stages.ppo.run.spec.schedule.steps", "2", "--stages.ppo.run.trainer.max_epochs", "2"]
MOMENTS = {
    "in the preference model": ("pm", "nashtune.training.module:AlignmentModule.training_step", 4, True),
    "while the preference model finishes": ("pm", "nashtune.training.finish:export_policy", 1, False),
    "while PPO samples": ("ppo", "nashtune.rounds.collect:write_completions", 2, False),
    "in an update of PPO": ("ppo", "nashtune.training.module:AlignmentModule.training_step", 3, False),
}
WHOLE: dict[str, bytes] = {}
PROMPTS, ANSWERS = ["Do you like red?", "Do you like red?", "Why?"], ["Yes, red is lovely", "No", "It is"]


def weights(out: Path) -> dict[str, bytes]:
    return {stage: (out / stage / "run" / "export" / "model.safetensors").read_bytes() for stage in ("pm", "ppo")}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ppo_against_a_preference_model_killed_and_run_again(line, same_process, moment, monkeypatch):
    if not WHOLE:
        WHOLE.update(weights(line.run(*SMALL, pipeline="methodology_ppo", folder="whole")))
    stage, target, call, after = MOMENTS[moment]
    real = fit_command.call

    def dies(arguments, work):
        if work.folder.name != stage:
            return real(arguments, work)
        raise InputError(f"ended with {killed_run(arguments, str(line.folder), target, call, after=after)}")

    with monkeypatch.context() as patched:
        patched.setattr(fit_command, "call", dies)
        line.run(*SMALL, pipeline="methodology_ppo", code=2)
    out = line.run(*SMALL, pipeline="methodology_ppo")
    assert weights(out) == WHOLE
    config = yaml.safe_load((out / "ppo" / "run.yaml").read_text())
    assert config["spec"]["oracle"]["name"] == "reward_model"
    assert config["spec"]["oracle"]["path"] == str(out / "pm/run/export")
    record = json.loads((out / "ppo" / "stage.json").read_text())
    assert record["settings"]["spec"]["oracle"]["path"] == "@pm/export"
    assert len(record["inputs"]["@pm/export"]) == 64
    assert "mean reward" in record["summary"]


@pytest.fixture
def without_filter(line):
    config = yaml.safe_load(line.run_file.read_text())
    del config["stages"]
    line.run_file.write_text(yaml.safe_dump(config))
    return line


def test_independent_members_are_an_ensemble(without_filter, same_process):
    """Each member is the reward model that `fit` trains with its seed, and the ensemble oracle reads their folder."""
    line = without_filter
    small = ["--stages.members.seeds", "2", "--stages.members.run.trainer.max_epochs", "1"]
    out = line.run(*small, pipeline="reward_ensemble_independent")
    found = RewardEnsembleOracle(path=str(out / "members" / "export"), device="cpu").score(PROMPTS, ANSWERS)
    assert found.members is not None and found.members.shape == (3, 2)
    for k in range(2):
        alone = RewardModelOracle(path=str(out / "members" / "run" / f"seed-{k}" / "export"), device="cpu")
        assert torch.equal(alone.score(PROMPTS, ANSWERS).mean, found.members[:, k])
    assert not torch.allclose(found.members[:, 0], found.members[:, 1])


def test_lora_members_go_on_with_the_heads_of_one_trunk(without_filter, same_process):
    """With a learning rate of next to nothing member k is the trunk with head k, and the trunk is read once."""
    line = without_filter
    small = ["--stages.heads.run.spec.optimizer.lr", "0.01", "--stages.members.run.spec.optimizer.lr", "1e-12"]
    out = line.run(*small, pipeline="reward_ensemble_lora")
    heads = RewardEnsembleOracle(path=str(out / "heads" / "run" / "export"), device="cpu").score(PROMPTS, ANSWERS)
    members = RewardEnsembleOracle(path=str(out / "members" / "export"), device="cpu").score(PROMPTS, ANSWERS)
    assert heads.members is not None and members.members is not None
    assert members.members.shape == (3, 3)
    assert torch.allclose(heads.members, members.members, atol=1e-5)
    assert heads.members.std(1).min() > 1e-3
    for k in range(3):
        folder = out / "members" / "export" / f"seed-{k}"
        base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert Path(base).resolve() == (out / "heads/run/export").resolve()
        config = yaml.safe_load((out / "members/run" / f"seed-{k}.yaml").read_text())
        assert config["spec"]["head"]["member"] == k
        assert config["seed_everything"] == k


def test_own_heads_need_members(line, refused):
    (line.folder / "one.yaml").write_text("stages:\n  members: {name: fit, spec: reward_bt, own_heads: true}\n")
    said = refused("run", "one.yaml", "--policy.path", "m", "--data.train", "train.jsonl")
    assert "stages.members: 'fit': own_heads: true, but there are no members; give seeds" in said

"""Reward models from the command line: trained, resumed, exported, read again by the oracle and by transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lab import Lab, pair_rows
from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.models.reward_folder import REWARD_FILE
from nashtune.oracles.reward_model import RewardModelOracle
from nashtune.training.checkpoint import newest_checkpoint

HELD_OUT = pair_rows(6, start=100)
EVEN = ("--spec.optimizer.warmup", "0", "--spec.optimizer.decay", "constant")  # the same in a run that max_steps ends
THREE = ("--spec.head.members", "3", "--spec.head.own_order", "true")


def plainly(folder: Path, members: int = 1) -> torch.Tensor:
    """Scores (rows, 2, K) of the held-out answers, as somebody without nashtune computes them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if (folder / "adapter_config.json").exists():
        base = json.loads((folder / REWARD_FILE).read_text())["base"]
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=members, pad_token_id=tokenizer.pad_token_id
        )
        model = PeftModel.from_pretrained(model, folder)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    scores = []
    for row in HELD_OUT:
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}],
                tokenize=False,
            )
            for side in ("chosen", "rejected")
        ]
        with torch.no_grad():
            inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
            scores.append(model.eval()(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits)
    return torch.stack(scores)


def by_oracle(folder: Path) -> torch.Tensor:
    """Rewards (rows, 2) of the held-out answers."""
    oracle = RewardModelOracle(path=str(folder))
    oracle.prepare()
    prompts = [str(row["prompt"]) for row in HELD_OUT for _ in range(2)]
    answers = [str(row[side]) for row in HELD_OUT for side in ("chosen", "rejected")]
    return oracle.score(prompts, answers).mean.reshape(-1, 2)


def test_a_reward_model_learns_and_judges_from_its_folder(lab: Lab) -> None:
    run = lab.fit("--spec.head.normalise", "gain_bias", spec="reward_bt")
    losses = [value for _, value in lab.metrics(run).series["train/loss"]]
    assert losses[-1] < 0.5 * losses[0]
    assert json.loads((run / "report.json").read_text())["held_out"]["accuracy"] == 1.0
    facts = json.loads((run / "export" / REWARD_FILE).read_text())
    assert facts["members"] == 1 and facts["template"] == "chat" and facts["max_length"] == 128

    scores, rewards = plainly(run / "export")[..., 0].double(), by_oracle(run / "export")
    assert bool((rewards[:, 0] > rewards[:, 1]).all())
    torch.testing.assert_close(rewards, facts["gain"][0] * scores + facts["bias"][0], atol=1e-5, rtol=1e-5)
    assert facts["gain"][0] != 1.0

    assert main(["export", str(run), "--out", "again"]) == 0
    again = lab.folder / "again"
    assert (again / REWARD_FILE).read_bytes() == (run / "export" / REWARD_FILE).read_bytes()
    assert torch.equal(plainly(again)[..., 0].double(), scores)
    card = (again / "README.md").read_text()
    for part in ("pipeline_tag: text-classification", "reward-model", "gain * score + bias", "AutoModelForSequence"):
        assert part in card


def test_an_adapter_is_exported_with_its_head(lab: Lab) -> None:
    run = lab.fit("--policy.lora.r", "4", "--spec.head.members", "2", spec="reward_bt")
    scores = plainly(run / "export", 2)
    state = torch.load(newest_checkpoint(run), weights_only=True)["state_dict"]
    assert [name for name in state if "lora_" not in name] == ["base_model.model.score.modules_to_save.default.weight"]
    assert main(["export", str(run), "--merged", "--out", "merged"]) == 0
    torch.testing.assert_close(plainly(lab.folder / "merged"), scores, atol=1e-5, rtol=1e-4)
    card = (run / "export" / "README.md").read_text()
    assert "num_labels=2" in card and "an ensemble" in card and "PeftModel" in card
    assert "PeftModel" not in (lab.folder / "merged" / "README.md").read_text()


def test_a_resumed_run_equals_an_undisturbed_one(lab: Lab) -> None:
    """In the middle of an epoch of 4 steps, and at its end, where a member's turn changes."""
    whole = lab.fit(*THREE, *EVEN, spec="reward_bt", run="whole")
    for stop in ("3", "4"):
        parts = lab.fit(*THREE, *EVEN, "--trainer.max_steps", stop, spec="reward_bt", run=stop)
        assert main(["fit", "--ckpt_path", "last", "--run_dir", str(parts), "--trainer.max_steps", "-1"]) == 0
        states = [torch.load(newest_checkpoint(run), weights_only=True) for run in (whole, parts)]
        assert states[0]["global_step"] == states[1]["global_step"] == 8
        for name, weight in states[0]["state_dict"].items():
            assert torch.equal(weight, states[1]["state_dict"][name]), name
        assert torch.equal(plainly(whole / "export", 3), plainly(parts / "export", 3))


def test_members_with_orders_of_their_own_differ_and_all_learn(lab: Lab) -> None:
    run = lab.fit(*THREE, "--trainer.max_epochs", "4", spec="reward_bt")
    scores = plainly(run / "export", 3)
    margins = scores[:, 0] - scores[:, 1]
    assert bool((margins > 0).all())
    assert float(margins.std(1).min()) > 1e-3


def test_a_frozen_trunk_is_exported_as_it_was(lab: Lab, tiny: Path) -> None:
    from safetensors.torch import load_file

    run = lab.fit("--spec.head.trunk", "frozen", spec="reward_bt")
    before, after = load_file(tiny / "model.safetensors"), load_file(run / "export" / "model.safetensors")
    assert set(after) - set(before) == {"score.weight"}
    assert all(torch.equal(weight, after[name]) for name, weight in before.items() if name != "lm_head.weight")
    losses = [value for _, value in lab.metrics(run).series["train/loss"]]
    assert losses[-1] < losses[0]


def test_the_scale_is_that_of_the_folder_under_mixed_precision(lab: Lab) -> None:
    """A frozen trunk's features were remembered under the steps' autocast; the oracle has none."""
    mixed = ("--spec.head.trunk", "frozen", "--trainer.precision", "bf16-mixed")
    run = lab.fit(*mixed, "--spec.head.normalise", "gain_bias", spec="reward_bt")
    oracle = RewardModelOracle(path=str(run), device="cpu")  # a run folder stands for its export
    rows = pair_rows(14)
    found = oracle.score([str(row["prompt"]) for row in rows], [str(row["chosen"]) for row in rows]).mean
    assert abs(float(found.mean())) < 1e-4 and abs(float(found.std(correction=0)) - 1) < 1e-4


def test_a_run_whose_end_failed_is_exported(
    lab: Lab, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise OSError("no space left on device")

    whole = lab.fit(spec="reward_bt", run="whole")
    measured = ("--spec.head.normalise", "gain_bias")
    scaled = lab.fit(*measured, spec="reward_bt", run="scaled")
    for place, run, more in (("normalise", "a", ()), ("normalise", "b", measured), ("export_policy", "c", measured)):
        with monkeypatch.context() as patch:
            patch.setattr(f"nashtune.training.finish.{place}", fail)
            arguments = ("--spec", "reward_bt", "--config", str(lab.run_file), "--run_dir", run, *more)
            with pytest.raises(OSError, match="no space"):
                main(["fit", *arguments])
    for run, expected in (("a", whole), ("c", scaled)):
        assert main(["export", run]) == 0
        for name in (REWARD_FILE, "model.safetensors"):
            assert (lab.folder / run / "export" / name).read_bytes() == (expected / "export" / name).read_bytes()
    message = refused("export", "b")
    assert "head.normalise: gain_bias are measured" in message and "--ckpt_path last --run_dir b" in message
    with pytest.raises(InputError, match=r"oracle\.path: b is the folder of a run that has exported no model yet"):
        RewardModelOracle(path="b").prepare()
    assert main(["fit", "--ckpt_path", "last", "--run_dir", "b"]) == 0
    assert (lab.folder / "b/export" / REWARD_FILE).read_bytes() == (scaled / "export" / REWARD_FILE).read_bytes()


def test_training_goes_on_from_an_exported_reward_model(lab: Lab) -> None:
    first = lab.fit(spec="reward_bt", run="first")
    again = lab.fit("--policy.path", str(first / "export"), spec="reward_bt", run="second")
    start = lab.metrics(again).series["train/loss"][0][1]
    assert start < lab.metrics(first).series["train/loss"][0][1] / 2
    member = lab.fit("--policy.lora.r", "2", "--policy.path", str(first / "export"), spec="reward_bt", run="third")
    assert by_oracle(member / "export").shape == (6, 2)


def test_what_cannot_be_trained_is_refused(lab: Lab, refused: Callable[..., str]) -> None:
    reward = ("--spec", "reward_bt", "--config", str(lab.run_file))
    odd = refused("fit", *reward, "--spec.head.own_order", "true", "--trainer.max_epochs", "3")
    assert "trainer.max_epochs: 3, but with head.own_order" in odd
    frozen = refused("fit", *reward, "--spec.head.trunk", "frozen", "--policy.lora.r", "2")
    assert "spec.head.trunk: frozen" in frozen
    run = lab.fit(spec="reward_bt")
    export = ("--policy.path", str(run / "export"))
    assert "has 1 output(s), and the spec asks for 2" in refused("fit", *reward, *export, "--spec.head.members", "2")
    assert "is a reward model" in refused("fit", "--spec", "dpo", "--config", str(lab.run_file), *export)
    assert "is a reward model" in refused("check", "dpo", "--config", str(lab.run_file), *export)

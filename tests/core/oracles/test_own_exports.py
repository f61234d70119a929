"""A reward model that nashtune trained is an oracle from its folder, with the scores of its training."""

from __future__ import annotations

import pytest
import torch

from nashtune.data.budget import padded
from nashtune.data.conversations import Conversations
from nashtune.interfaces.batch import TokenBatch
from nashtune.models.config import LoraSettings, PolicyConfig
from nashtune.models.normaliser import Normaliser
from nashtune.models.reward_policy import RewardPolicy
from nashtune.oracles.reward_ensemble import RewardEnsembleOracle
from nashtune.oracles.reward_model import RewardModelOracle
from nashtune.spec.model import HeadSpec

PROMPTS, TEXTS = ["Hi", "Hi", "Why is the sky blue?"], ["Hello.", "Bye", "Because."]


def trained(start, members: int, lora: bool, seed: int = 4, **head: object) -> RewardPolicy:
    settings = LoraSettings(r=2) if lora else None
    policy = RewardPolicy(PolicyConfig(path=str(start), lora=settings), HeadSpec(members=members, **head))
    policy.load()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for weight in policy.trainable_state_dict().values():
            torch.nn.init.normal_(weight, std=0.2)
    policy.normaliser = Normaliser(gain=[2.0] * members, bias=[0.5] * members)
    return policy


def own_scores(policy: RewardPolicy) -> torch.Tensor:
    texts = Conversations(policy.tokenizer(), "chat", "tiny")
    rows = [texts.encode(prompt, text).ids for prompt, text in zip(PROMPTS, TEXTS, strict=True)]
    ids_NT, mask_NT = padded(rows, 0, "right")
    batch = TokenBatch(
        kind="ranked",
        input_ids=ids_NT,
        attention_mask=mask_NT,
        completion_mask=mask_NT.bool(),
        rows=torch.arange(3),
    )
    with torch.no_grad():
        return policy.scores(batch).double()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_the_oracle_scores_as_the_training_did(tiny, tmp_path, members, lora):
    policy = trained(tiny, members, lora)
    policy.save_pretrained(tmp_path / "reward")
    expected = 2 * own_scores(policy) + 0.5
    oracle = RewardEnsembleOracle(path=str(tmp_path / "reward"), device="cpu")
    found = oracle.score(PROMPTS, TEXTS).members
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    if members == 1:
        assert torch.equal(
            RewardModelOracle(path=str(tmp_path / "reward"), device="cpu").score(PROMPTS, TEXTS).mean, found[:, 0]
        )


def test_adapters_that_go_on_from_the_heads_of_one_trunk(tiny, tmp_path):
    """A LoRA ensemble: heads first, then an adapter for each of them; all on the one trunk."""
    trained(tiny, 2, lora=False).save_pretrained(tmp_path / "heads")
    expected = []
    for member in range(2):
        policy = trained(tmp_path / "heads", 1, lora=True, seed=member, member=member)
        policy.save_pretrained(tmp_path / "members" / f"seed-{member}")
        expected.append(2 * own_scores(policy) + 0.5)
    oracle = RewardEnsembleOracle(path=str(tmp_path / "members"), device="cpu")
    found = oracle.score(PROMPTS, TEXTS).members
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=0, atol=1e-6)
    assert len(oracle._reader._parts) == 1 and (found[:, 0] - found[:, 1]).abs().min() > 0.01

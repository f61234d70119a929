from __future__ import annotations

import pytest
import torch

from nashtune.rl.rewards import compose, ended, last_tokens, refuse_two_rules, token_rewards
from rl_batches import rollouts
from rl_numbers import NEW, OLD, REF, SCORE

BETA = torch.tensor(0.1, dtype=torch.float64)
BATCH = rollouts(NEW, REF, old=OLD, score=SCORE)


def test_published_numbers():
    found = compose(BATCH, BETA, kl_in="reward", estimator="k1")
    reward = token_rewards(found.score, found.penalty, BATCH.lengths)
    assert reward.tolist() == pytest.approx([0.02, -0.02, 0.01, 1.49, -0.02, 0.04, -0.505], abs=1e-15)
    assert found.total.tolist() == pytest.approx([1.5, -0.485], abs=1e-15)  # the sums of k1 are 0 and -0.15


def test_the_penalty_is_that_of_the_policy_that_drew():
    """Not of the policy as it is now, which moves during an update."""
    moved = rollouts(OLD, REF, old=OLD, score=SCORE)
    both = [compose(one, BETA, kl_in="reward", estimator="k3").penalty for one in (BATCH, moved)]
    assert torch.equal(*both)
    drawn_now = compose(rollouts(OLD, REF, score=SCORE), BETA, kl_in="reward", estimator="k3").penalty
    assert torch.equal(drawn_now, both[0]) and not drawn_now.requires_grad


def test_in_the_loss_there_is_no_penalty_here():
    found = compose(BATCH, BETA, kl_in="loss", estimator="k3")
    assert found.penalty.tolist() == [0.0] * 7 and found.total.tolist() == SCORE


def test_beta_may_differ_between_completions():
    beta = torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = compose(BATCH, beta, kl_in="reward", estimator="k1")
    assert found.penalty.tolist() == pytest.approx([0.0] * 4 + [0.2, -0.4, 0.05], abs=1e-15)


def test_an_unfinished_completion_loses():
    score, finished = torch.tensor([1.5, -0.5]), torch.tensor([True, False])
    assert ended(score, finished, -1.0, 0.0).tolist() == [1.5, -1.0]
    assert ended(score, finished, None, 0.75).tolist() == [1.5, -1.25]
    assert ended(score, finished, 0.0, 0.0).tolist() == [1.5, 0.0]
    assert ended(score, None, -1.0, 0.0) is score
    with pytest.raises(ValueError, match="no_eos_score replaces the score"):
        refuse_two_rules(-1.0, 0.5)


def test_every_completion_has_its_own_last_token():
    assert last_tokens(torch.tensor([4, 1, 3])).tolist() == [3, 4, 7]
    found = token_rewards(torch.tensor([10.0, 20.0, 30.0]), torch.zeros(8), torch.tensor([4, 1, 3]))
    assert found.tolist() == [0, 0, 0, 10, 20, 0, 0, 30]

"""A preference model, from pairs to an oracle: the oracle asks the exported model what it was trained on."""

from __future__ import annotations

import pytest
import torch

from lab import Lab, pair_rows
from nashtune.oracles.preference_model import PreferenceModelOracle

pytestmark = pytest.mark.loads

TRAIN = ("--spec.optimizer.lr", "3e-3", "--spec.optimizer.warmup", "0", "--trainer.max_epochs", "4")


def test_the_oracle_gives_the_loss_that_training_has_measured(lab: Lab):
    """Cross-entropy of both orders, from the folder that `fit` exports and through the oracle's own forward pass."""
    run = lab.fit(*TRAIN, spec="preference_pm")
    series = lab.metrics(run).series
    assert series["train/loss"][-1][1] < series["train/loss"][0][1]
    held_out = [(str(row["prompt"]), str(row["chosen"]), str(row["rejected"])) for row in pair_rows(6, start=100)]
    oracle = PreferenceModelOracle(path=str(run / "export"), device="cpu")
    other_way = [(prompt, rejected, chosen) for prompt, chosen, rejected in held_out]
    says_first = oracle._ask([tuple(ids) for ids in oracle._questions([*held_out, *other_way])])
    right = torch.cat([says_first[:6], 1 - says_first[6:]])
    assert series["val/loss"][-1][1] == pytest.approx(float(-right.log().mean()), abs=1e-6)
    assert series["val/accuracy"][-1][1] == pytest.approx(float((right > 0.5).double().mean()))
    p = oracle.compare(*map(list, zip(*held_out, strict=True)))
    torch.testing.assert_close(p, (right[:6] + right[6:]) / 2)

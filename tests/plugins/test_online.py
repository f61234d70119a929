"""Online DPO and online IPO: the offline losses, with rounds of their own pairs and the start as reference."""

from __future__ import annotations

import pytest

from method_batches import Game
from nashtune.interfaces.schedule import Anchor, Collect
from nashtune.spec.resolve import build, resolve
from nashtune_plugins.inpo import INPOLoss
from nashtune_plugins.ipo import IPOLoss


@pytest.mark.parametrize(("online", "offline"), [("online_dpo", "dpo"), ("online_ipo", "ipo_sum")])
def test_the_loss_is_the_offline_one(online, offline):
    here, there = resolve(online), resolve(offline)
    assert (here.loss, here.kl, here.references) == (there.loss, there.kl, there.references)


@pytest.mark.parametrize("name", ["online_dpo", "online_ipo"])
def test_the_reference_is_the_start_in_every_round(name):
    spec = resolve(name)
    assert spec.references["ref"].name == "base"
    rounds = build(spec.schedule).rounds()
    assert [made.phases[0] for made in rounds] == [Collect(policy=p) for p in ("start", "main@1", "main@2")]
    assert all(isinstance(made.phases[3], Anchor) for made in rounds)


def test_online_ipo_is_inpo_with_tau_equal_to_eta():
    """Its step forgets the last policy, so that the regularised Nash policy is its fixed point."""
    game, tau = Game(5, seed=7), 0.8
    ref = game.policy()
    step = (ref + game.wins / tau).log_softmax(0)
    for loss in (IPOLoss(tau=tau, reduction="sum"), INPOLoss(eta=tau, tau=tau)):
        assert float(game.slope(loss, step, ref=ref, previous=game.mu).abs().max()) < 1e-12

"""Losses and KL controllers that a tabular run cannot play: they mean something else without batches and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nashtune.errors import InputError
from nashtune.interfaces import KLController, Loss
from nashtune.interfaces.kl import watches

if TYPE_CHECKING:
    from nashtune.spec.model import Spec


def refuse_other_rows(loss: Loss, spec: Spec) -> None:
    """Refuse a loss that does not work on pairs.

    Raises:
        InputError: it does not.
    """
    if loss.rows == "rollouts":
        raise InputError(
            f"verify {spec.name}: a policy gradient has no population minimiser on a game of preferences. Against "
            'rewards give a bandit: --game FILE.json with "rewards", "sigma" and "reference"; of nash_md_pg and '
            "nash_ema_pg, `nashtune verify nash_md` proves the mirror-descent form"
        )
    if loss.rows != "pairs":
        raise InputError(
            f"verify {spec.name}: the loss '{spec.loss.name}' reads single {loss.rows}, and a game is played in pairs"
        )


def refuse_following_steps(loss: Loss, spec: Spec) -> None:
    """Refuse a loss whose state is a running mean over optimiser steps.

    A controller's state has a value at the minimiser; such a mean depends on how one came there.

    Raises:
        InputError: it has one.
    """
    if watches(loss):
        raise InputError(
            f"verify {spec.name}: the loss '{spec.loss.name}' changes with what it observes at each optimiser step, "
            "and an update is one exact minimisation here, without steps: its state, and so its minimiser, would be "
            "others than training's. `nashtune vectors` shows its values"
        )


def refuse_comparing_rows(loss: Loss, kl: KLController | None, spec: Spec) -> None:
    """Refuse what compares the rows of a batch.

    Raises:
        InputError: the loss or the controller does.
    """
    # of a variance a bandit tells the controller its mean first, and a game has none (PairBatch says so)
    compared = None if kl is not None and kl.uses_variance else kl
    parts = {"loss": (loss, spec.loss), "kl": (compared, spec.kl)}
    for kind, (part, named) in parts.items():
        if part is not None and named is not None and part.compares_rows:
            raise InputError(
                f"verify {spec.name}: the {kind} '{named.name}' compares the rows of a batch with one another. A game "
                "has every pair in both orders in one batch, each with its probability beside it, so that this would "
                "be another objective than training's"
            )

"""Improving LLM General Preference Alignment via Optimistic Online Mirror Descent (ONPO), arXiv:2502.16852.

What is new: the game of general preferences is played without a regulariser, by optimistic mirror descent. An auxiliary
policy pi' takes the ordinary mirror step; the played policy pi takes one step more, on a prediction of the next win
rates, which is simply the last round's. The duality gap of the average policy then falls like 1/T instead of 1/sqrt T,
and each step is a regression that needs only pairs with labels.

Equations, for round t, with r_t(y) = P(y > pi_t) and D_t pairs drawn from pi_t (both completions) and labelled:

    pi'_{t+1} ~ pi'_t     exp(eta r_t)           loss on D_t, anchor pi'_t
    pi_{t+1}  ~ pi'_{t+1} exp(eta r_t)           loss on the same D_t, anchor pi'_{t+1}
    g    = log pi(y_w)/pi(y_l) - log pi'(y_w)/pi'(y_l)
    loss = (g - eta/2)^2

Conventions: log-probs are sums over completion tokens, EOS included, never divided by length: the target eta/2 is in
nats of whole completions. The anchor carries no gradient; one value per pair. eta is a step (larger moves further); it
is 1/eta of INPO.

Departures: the paper's text, as far as it could be read, names neither initial weights nor optimiser resets; here each
update starts at its anchor's weights with a fresh optimiser. `aux: virtual` is ours, an exact rewriting: pi'_{t+1} is
the geometric mean of pi'_t and pi_{t+1}, so that pi_{t+1} can be trained alone, with twice the step, against

    log pi'_t = 2^-(t-1) log pi_1 + sum_{s=2..t} 2^-(t-s+1) log pi_s + const

which halves the training. The authors have released no code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import PositiveFloat, PositiveInt

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Schedule, Step
from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Phase, Round, Snapshot, Update
from nashtune.plugins import Component, hookimpl
from nashtune.schedules.online import snapshot_name

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.

SMALLEST_HALVING = 60
"""2^-60 of a log-prob is below float64's resolution: older policies leave the mixture, so that it stays short."""


def onpo_loss(g_B: Tensor, *, eta: float) -> Tensor:
    """Squared distance of g from its target eta/2, one value per pair (B,)."""
    return (g_B - eta / 2.0) ** 2


class ONPOLoss(Loss):
    """Squared loss on the log-ratio against the auxiliary policy.

    Args:
        eta: Step of mirror descent, > 0; the target is eta/2 nats (paper: 100; its theory: at most 1/2).
    """

    anchors: ClassVar[tuple[str, ...]] = ("aux",)
    uses_beta: ClassVar[bool] = False
    reward_unit = "nats / η"

    def __init__(self, *, eta: PositiveFloat) -> None:
        self.eta = float(eta)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each pair (B,).

        The implicit reward is log pi/pi' divided by the step eta: the win rate that the policy has been fitted to, up
        to a constant of the prompt. Its margin has the target 1/2. Metrics, per pair: `log_ratio_margin` (g, in nats)
        and its `target`.
        """
        eta = step.scale * self.eta
        chosen_B, rejected_B = cast(PairBatch, batch).log_ratios("aux")
        g_B = chosen_B - rejected_B
        return LossOutput(
            values=onpo_loss(g_B, eta=eta),
            reward_chosen=chosen_B.detach() / eta,
            reward_rejected=rejected_B.detach() / eta,
            metrics={"log_ratio_margin": g_B.detach(), "target": g_B.new_full(g_B.shape, eta / 2.0)},
        )

    def gap_bound(self, rounds: int, divergence: float) -> tuple[str, float] | None:
        """(2D/eta + 2 eta)/T for the average policy, where eta <= 1/sqrt 2: the regret analysis needs a small step."""
        if self.eta > math.sqrt(0.5):
            return None
        return "(2D/η + 2η)/T", (2.0 * divergence / self.eta + 2.0 * self.eta) / rounds


class ONPOSchedule(Schedule):
    """Rounds of two mirror steps on the same pairs: the auxiliary policy's, then the played policy's.

    Args:
        rounds: Rounds T, > 0 (paper: small, for example 3).
        aux: `trained` fits both policies in each round, as the paper does; `virtual` fits the played one alone, with
            twice the step, against the mixture of stored policies that equals the auxiliary one.
    """

    reads: ClassVar[tuple[str, ...]] = ("oracle", "sampler", "pairing")
    gives_previous: ClassVar[bool] = True

    def __init__(self, *, rounds: PositiveInt = 3, aux: Literal["trained", "virtual"] = "trained") -> None:
        self.count = int(rounds)
        self.aux = aux

    def rounds(self) -> tuple[Round, ...]:
        """Round t makes `main@t` (pi_{t+1} of the paper) and, where it is trained, `aux@t` (pi'_{t+1})."""
        return tuple(self._round(t) for t in range(1, self.count + 1))

    def _round(self, t: int) -> Round:
        main, after = snapshot_name("main", t - 1), snapshot_name("main", t)
        sampling: tuple[Phase, ...] = (Collect(policy=main), Judge(), Pair())
        steps: tuple[Phase, ...]
        if self.aux == "virtual":
            steps = (Anchor(previous=virtual_auxiliary(t)), Update(start=main, step_scale=2.0), Snapshot(name=after))
        else:
            old, new = snapshot_name("aux", t - 1), snapshot_name("aux", t)
            steps = (
                Anchor(previous={old: 1.0}),
                Update(start=old, name="aux"),
                Snapshot(name=new),
                Anchor(previous={new: 1.0}),
                Update(start=new, name="main"),
                Snapshot(name=after),
            )
        return Round(phases=sampling + steps, policy=after)


def virtual_auxiliary(t: int) -> dict[str, float]:
    """Weights of the played policies' log-probs that make pi'_t, by snapshot; `main@(s-1)` is the paper's pi_s."""
    oldest = max(1, t - SMALLEST_HALVING)
    weights = {snapshot_name("main", oldest - 1): 2.0 ** -(t - oldest)}
    return weights | {snapshot_name("main", s - 1): 2.0 ** -(t - s + 1) for s in range(oldest + 1, t + 1)}


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss and the schedule `onpo`."""
    return [
        Component("loss", "onpo", "nashtune_plugins.onpo:ONPOLoss"),
        Component("schedule", "onpo", "nashtune_plugins.onpo:ONPOSchedule"),
    ]

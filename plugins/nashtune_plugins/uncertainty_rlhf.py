"""Towards Reliable Alignment: Uncertainty-aware RLHF, arXiv:2410.23726 (follow-up: arXiv:2507.15906).

What is new: the learnt reward is an estimate with a variance, which an ensemble of reward models shows, and the policy
is held closer to the reference where that variance is large. In a policy gradient this is a KL coefficient per
completion, beta v, and nothing else: a KL controller beside any loss.

Equations, with R the ensemble's reward, s2 its variance over the members, h = log pi(y|x)/pi_ref(y|x):

    J(pi) = E_{x, y ~ pi} [ R(x, y) - beta v(x, y) h(x, y) ]
    v     = clip(s2 / running mean of s2, v_min, v_max)          normalise: running
    v     = s2                                                   normalise: none

    detached   R - beta v h is a constant for the gradient         fixed point  pi_ref exp((R - lam)/(beta v))
    exact      R - beta v (h + 1): the gradient of J               optimum      pi_ref exp((R - lam)/(beta v) - 1)
    precision  (R - mean of R over the prompt)/v - beta h          optimum      pi_ref exp(R/(beta v)) / Z

    pairwise   -log sigma(beta (v_w h_w - v_l h_l))                from `detached`: R = lam(x) + beta v h, lam cancels

lam(x) makes the probabilities sum to 1. v carries no gradient. With v constant, c, each is the ordinary method at
beta c (`precision`: at beta c with the rewards divided by c).

Provenance: the abstract and a caption of the paper were read, and a talk of an author's; the text of the paper could
not be. From these: ten reward models that differ in their seeds disagree widely, the objective penalises movement more
where the variance is large, and the policy has less risk than the ordinary one. The objective inside a KL penalty and
the form `precision` are from memory; the three readings, their fixed points and the pairwise form are derived; the
normalisation and its clipping are ours. No code of the authors was found.

Departures: none can be named against a text that was not read. `detached` is the default because a shaped reward
optimises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from jsonargparse.typing import NonNegativeFloat, PositiveFloat

from nashtune.errors import InputError
from nashtune.interfaces import KLController, Loss, LossBatch, LossOutput, PairBatch, RolloutBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: B = pairs, S = rollouts, G = prompts.

DECAY = 0.99
"""Weight of the old running mean (ours)."""


def group_centred(score_S: Tensor, group_S: Tensor | None, weight_S: Tensor | None) -> Tensor:
    """Scores minus the mean over their prompt's completions (S,).

    Args:
        score_S: Rewards (S,).
        group_S: Which prompt each completion answers (S,); None: all of them the same.
        weight_S: Share of each completion in the mean (S,), > 0; None: equal shares.
    """
    import torch

    weights_S = torch.ones_like(score_S) if weight_S is None else weight_S.to(score_S.dtype)
    groups_S = torch.zeros_like(score_S, dtype=torch.long) if group_S is None else group_S
    places_S = torch.unique(groups_S, return_inverse=True)[1]
    empty_G = score_S.new_zeros(int(places_S.max()) + 1)
    total_G = empty_G.index_add(0, places_S, weights_S)
    mean_G = empty_G.index_add(0, places_S, weights_S * score_S) / total_G
    return score_S - mean_G[places_S]


def pairwise_loss(margin_B: Tensor, p_chosen_B: Tensor | None = None) -> Tensor:
    """-log sigma(margin) of each pair, or with soft labels its mean over both answers (B,).

    Args:
        margin_B: beta_w h_w - beta_l h_l (B,).
        p_chosen_B: P(y_w > y_l), in [0, 1] (B,); None means 1.
    """
    from torch.nn.functional import logsigmoid

    if p_chosen_B is None:
        return -logsigmoid(margin_B)
    p_B = p_chosen_B.to(margin_B.dtype)
    return -p_B * logsigmoid(margin_B) - (1.0 - p_B) * logsigmoid(-margin_B)


class VarianceWeightedKL(KLController):
    """A KL coefficient beta v for each completion, from the variance of its reward.

    Args:
        beta: Coefficient where v is 1, > 0 (paper: unknown; 0.1 is ours).
        variant: `detached`, `exact` or `precision`: what is optimised (see the page); pairs have `detached` alone.
        normalise: `running`: v is the variance divided by its running mean and clipped (ours); `none`: the variance as
            it is, neither divided nor clipped (the literal form, from memory).
        v_min: With `running`, the smallest v, >= 0 (ours).
        v_max: With `running`, the largest v, > 0 (ours).
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("pairs", "rollouts")
    uses_variance: ClassVar[bool] = True
    beta_per_side: ClassVar[bool] = True
    compares_rows: ClassVar[bool] = True  # of pairs, until the first step: the mean variance is then the micro-batch's
    vector_inputs: ClassVar[tuple[str, ...]] = ("variance_chosen", "variance_rejected")

    def __init__(
        self,
        *,
        beta: PositiveFloat = 0.1,
        variant: Literal["detached", "exact", "precision"] = "detached",
        normalise: Literal["running", "none"] = "running",
        v_min: NonNegativeFloat = 0.1,
        v_max: PositiveFloat = 10.0,
    ) -> None:
        if v_min > v_max:
            raise ValueError(f"v_min is {v_min:g}, above v_max, {v_max:g}; v is clipped to [v_min, v_max]")
        self.strength = float(beta)
        self.variant = variant
        self.normalise = normalise
        self.v_min, self.v_max = float(v_min), float(v_max)
        self._mean: Tensor | None = None  # running, on the device of the step; None or 0: nothing was observed

    def v(self, batch: LossBatch) -> Tensor:
        """Normalised variance, float64 and without gradient: (S,), or (B, 2) for chosen and rejected."""
        variance, weight_S = _variance(batch)
        if self.normalise == "none":
            return variance
        ratio = self._ratio(variance, weight_S)
        return ratio.clamp(self.v_min, self.v_max)

    def beta(self, batch: LossBatch) -> Tensor:
        """Coefficient beta v of each rollout (S,) or side of a pair (B, 2); a scalar where v divides the reward.

        Raises:
            InputError: the oracle gave no variance, or pairs with another variant than `detached`.
        """
        import torch

        logp = batch.policy_chosen if isinstance(batch, PairBatch) else cast(RolloutBatch, batch).token_logp
        dtype = torch.promote_types(logp.dtype, torch.float32)
        if self.variant != "detached" and isinstance(batch, PairBatch):
            raise InputError(
                f"kl: variant {self.variant}: the pairwise form follows from `detached`; set --spec.kl.variant detached"
            )
        if self.variant == "precision":
            return torch.full((), self.strength, dtype=dtype, device=logp.device)
        return (self.strength * self.v(batch)).to(dtype=dtype, device=logp.device)

    def reward(self, batch: RolloutBatch, beta: Tensor) -> Tensor:
        """What stands for R in the policy gradient (S,): R, R - beta v, or R centred over its prompt and divided by v.

        Raises:
            InputError: `precision` with a variance of 0, which nothing keeps away from 0.
        """
        if self.variant == "detached":
            return batch.score
        if self.variant == "exact":
            return batch.score - beta.to(batch.score.dtype)
        v_S = self.v(batch)
        if bool((v_S <= 0).any()):
            raise InputError(
                f"kl: precision divides the reward by v, and v is 0 for {int((v_S <= 0).sum())} of {len(v_S)} "
                "completions: all members say the same of them; set normalise: running and v_min above 0"
            )
        return group_centred(batch.score, batch.group, batch.weight) / v_S.to(batch.score.dtype)

    def report(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """`variance`, `v`, and `clipped`, whether v is at a limit, of each rollout (S,); of pairs, by side (B,)."""
        variance, weight_S = _variance(batch)
        v = self.v(batch)
        ratio = v if self.normalise == "none" else self._ratio(variance, weight_S)
        found = {"variance": variance, "v": v, "clipped": (ratio != v).to(v.dtype)}
        found = {name: value.to(device=beta.device, dtype=beta.dtype) for name, value in found.items()}
        if isinstance(batch, PairBatch):
            sides = enumerate(("chosen", "rejected"))
            return {f"{name}_{side}": value[:, i] for i, side in sides for name, value in found.items()}
        return found

    def observe(self, means: Mapping[str, Tensor]) -> None:
        """Pairs: move the running mean after each optimiser step. Rollouts move it once an update (`observe_round`)."""
        if "variance_chosen" in means:
            self._move((means["variance_chosen"] + means["variance_rejected"]) / 2.0)

    def observe_round(self, means: Mapping[str, float], completions: int) -> None:
        """Move the running mean by the update's mean variance."""
        import torch

        self._move(torch.tensor(means["variance"], dtype=torch.float64))

    @property
    def running_mean(self) -> float | None:
        """Of the variance, once there is one. Waits for the device."""
        return None if self._mean is None else float(self._mean) or None

    def state_dict(self) -> dict[str, Any]:
        """The running mean of the variance, in double precision, once there is one."""
        mean = self.running_mean
        return {} if mean is None else {"running_mean": mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved running mean."""
        import torch

        mean = state.get("running_mean")
        self._mean = None if mean is None else torch.tensor(float(mean), dtype=torch.float64)

    def read_vector(self, batch: LossBatch, inputs: Mapping[str, Tensor]) -> LossBatch:
        """Variances of pairs.

        Raises:
            InputError: they were given for rollouts.
        """
        if not isinstance(batch, PairBatch):
            raise InputError(f"{next(iter(inputs))} is of pairs; completions have `variance` or `members`")
        known = {"variance_chosen": batch.variance_chosen, "variance_rejected": batch.variance_rejected, **inputs}
        return replace(batch, variance_chosen=known["variance_chosen"], variance_rejected=known["variance_rejected"])

    def write_vector(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """What a vector may expect besides the loss: `v`, and for pairs `beta` by side."""
        return {"v": self.v(batch)} | ({"beta": beta} if isinstance(batch, PairBatch) else {})

    def _ratio(self, variance: Tensor, weight_S: Tensor | None) -> Tensor:
        """Variance over its running mean; over the mean of this batch while nothing was observed."""
        mean = variance.mean() if weight_S is None else (weight_S * variance).sum() / weight_S.sum()
        if self._mean is not None:
            if self._mean.device != variance.device:  # once: from then on it is moved where the step is
                self._mean = self._mean.to(variance.device)
            mean = self._mean.where(self._mean != 0.0, mean)
        # no variance anywhere: nothing is less certain than anything else
        return (variance / mean).where(mean > 0.0, 1.0)

    def _move(self, mean: Tensor) -> None:
        if self._mean is None:
            self._mean = mean
            return
        old = self._mean.to(mean.device)
        # this form stays exactly where it is while the mean does; a first update without any variance says nothing
        self._mean = (old + (1.0 - DECAY) * (mean - old)).where(old != 0.0, mean)


def _variance(batch: LossBatch) -> tuple[Tensor, Tensor | None]:
    """Variances in float64, (S,) or (B, 2), without gradient, and the weights of rollouts."""
    import torch

    weight_S = None
    if isinstance(batch, PairBatch):
        sides = (batch.variance_chosen, batch.variance_rejected)
        known = [side for side in sides if side is not None]
        found = torch.stack(known, dim=-1) if len(known) == 2 else None
    else:
        rollouts = cast(RolloutBatch, batch)
        found, weight_S = rollouts.variance, rollouts.weight
    if found is None:
        raise InputError(
            "kl: variance_weighted reads the variance of the rewards, and spec.oracle gave none; use an oracle that "
            "knows it: a reward_ensemble of at least two members"
        )
    return found.detach().double(), None if weight_S is None else weight_S.detach().double()


class UncertaintyPairwiseLoss(Loss):
    """DPO with a beta for each side of a pair: -log sigma(beta_w h_w - beta_l h_l).

    With one beta for both sides it is DPO.
    """

    uses_p_chosen: ClassVar[bool] = True
    beta_per_side: ClassVar[bool] = True

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and implicit rewards beta v h of each pair (B,)."""
        pairs = cast(PairBatch, batch)
        beta = cast("Tensor", step.beta).to(pairs.policy_chosen.dtype)
        chosen_B, rejected_B = pairs.log_ratios()
        beta_w, beta_l = beta.unbind(-1) if beta.ndim == 2 else (beta, beta)
        reward_w, reward_l = beta_w * chosen_B, beta_l * rejected_B
        # with one beta the difference of log-ratios is taken first, as DPO does, so that both round alike
        margin_B = reward_w - reward_l if beta.ndim == 2 else beta * (chosen_B - rejected_B)
        return LossOutput(
            values=pairwise_loss(margin_B, pairs.p_chosen),
            reward_chosen=reward_w.detach(),
            reward_rejected=reward_l.detach(),
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The KL controller `variance_weighted` and the loss `uncertainty_pairwise`."""
    return [
        Component("kl", "variance_weighted", "nashtune_plugins.uncertainty_rlhf:VarianceWeightedKL"),
        Component("loss", "uncertainty_pairwise", "nashtune_plugins.uncertainty_rlhf:UncertaintyPairwiseLoss"),
    ]

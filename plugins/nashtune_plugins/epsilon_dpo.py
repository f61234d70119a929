"""KL Penalty Control via Perturbation for Direct Preference Optimization (epsilon-DPO), arXiv:2502.13177.

What is new: a beta per pair, found by asking whether a slightly smaller or larger KL penalty would separate the two
completions better. The neighbouring policies are not trained: the optimum at beta/lambda is the per-token logit mix
lambda f_theta + (1 - lambda) f_ref, so the logits that DPO computes anyway are enough. The loss stays DPO's.

Equations, with lambda = 1 + eps (beta^- = beta/(1 + eps)) and lambda = 1 - eps (beta^+ = beta/(1 - eps)):

    pi_lambda  = softmax(lambda f_theta + (1 - lambda) f_ref)     (Prop. 1)
    z^(lambda) = log pi_lambda(y_w|x) - log pi_lambda(y_l|x)
    s          = +1 if z^- > z_theta > z^+,   -1 if z^+ > z_theta > z^-,   0 otherwise
    beta~      = beta / (1 + eps_s s)
    beta       <- mean of beta~ over the optimiser step's pairs   (beta_update: mean_beta, the paper)
    beta       <- beta / (1 + eps_s mean s)                       (beta_update: mean_step, the authors' code)

Conventions: sums over completion tokens, EOS included; s is an integer and nothing here carries a gradient; the
running beta changes once per optimiser step, after its gradient, in training only.

Departures from the authors' code: the ratios are compared through their differences, z^(1 +- eps) - z_theta = sum_t
[+-eps delta_y - log E_{v ~ pi_theta} exp(+-eps delta_v)], delta = f_theta - f_ref, which is exactly 0 where policy
and reference agree and does not lose digits over long completions (the same mathematics in float32 or wider; bf16
mixing, as in the code, flips a third and more of the decisions). beta is checkpointed (theirs restarts at beta_0 on
resume). Label smoothing, which has no effect in their code, is cDPO's. The criterion's eps (`epsilon`, eps_c in the
ablation) and the step's (`epsilon_step`, eps_s) are two options, equal by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat

from nashtune.errors import InputError
from nashtune.interfaces import KLController, LossBatch, PairBatch
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: B = pairs, M = completion tokens, V = vocabulary.


def perturbation_shifts(delta_MV: Tensor, policy_MV: Tensor, targets_M: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Per token, log pi_lambda(y_t) - log pi_theta(y_t) at lambda = 1 + eps and at 1 - eps, in nats (M,) each.

    Args:
        delta_MV: f_theta - f_ref, logits of the policy minus those of the reference (M, V). Overwritten.
        policy_MV: Probabilities of the policy, softmax(f_theta) (M, V).
        targets_M: The completion's tokens (M,).
        eps: Perturbation: positive extrapolates away from the reference first.
    """
    scaled_MV = delta_MV.mul_(eps)
    scaled_y_M = scaled_MV.gather(-1, targets_M.unsqueeze(-1)).squeeze(-1)
    # LSE(f +- eps delta) - LSE(f) without the cancellation: exactly 0 at delta = 0, full precision near it
    away_M = torch.expm1(scaled_MV).mul_(policy_MV).sum(-1).log1p_()
    towards_M = scaled_MV.neg_().expm1_().mul_(policy_MV).sum(-1).log1p_()
    return scaled_y_M - away_M, -scaled_y_M - towards_M  # Prop. 1


def decide(shift_minus_B: Tensor, shift_plus_B: Tensor) -> Tensor:
    """The step s in {-1, 0, 1} of each pair (B,), from z^- - z_theta and z^+ - z_theta; a tie changes nothing."""
    relax_B = (shift_minus_B > 0) & (shift_plus_B < 0)  # z^- > z_theta > z^+
    tighten_B = (shift_plus_B > 0) & (shift_minus_B < 0)  # z^+ > z_theta > z^-
    return relax_B.long() - tighten_B.long()


class EpsilonDPOController(KLController):
    """A beta per pair from the perturbation criterion, around a running beta.

    Args:
        beta: Starting beta, > 0 (paper: 0.01).
        epsilon: Perturbation of the criterion, in [0, 1); 0 is DPO (paper: 0.005, 0.01 or 0.02; released: 0.01).
        epsilon_step: Size of the step beta~ = beta/(1 + epsilon_step s), in [0, 1); epsilon where not set.
        beta_update: `mean_beta`, the paper: mean of beta~; `mean_step`, the code: beta/(1 + epsilon_step mean s).
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("pairs",)
    statistics: ClassVar[tuple[str, ...]] = ("shift_minus", "shift_plus")
    vector_inputs: ClassVar[tuple[str, ...]] = ("steps",)

    def __init__(
        self,
        *,
        beta: PositiveFloat,
        epsilon: NonNegativeFloat,
        epsilon_step: NonNegativeFloat | None = None,
        beta_update: Literal["mean_beta", "mean_step"] = "mean_beta",
    ) -> None:
        for name, value in (("epsilon", epsilon), ("epsilon_step", epsilon_step)):
            if value is not None and not 0.0 <= value < 1.0:
                raise ValueError(f"{name} is {value}; it must be in [0, 1): beta/(1 - {name}) is the larger beta")
        self.running_beta = torch.tensor(float(beta), dtype=torch.float64)
        self.epsilon = float(epsilon)
        self.epsilon_step = float(epsilon if epsilon_step is None else epsilon_step)
        self.beta_update = beta_update

    @torch.no_grad()
    def token_statistics(self, policy_logits_MV: Tensor, ref_logits_MV: Tensor, targets_M: Tensor) -> dict[str, Tensor]:
        """Shift of each token's log-prob under the smaller (minus) and the larger (plus) beta (M,)."""
        # Upcast before anything is mixed: eps = 0.01 is close to the relative resolution of bf16.
        wide = torch.promote_types(policy_logits_MV.dtype, torch.float32)
        policy_logits_MV, ref_logits_MV = policy_logits_MV.to(wide), ref_logits_MV.to(wide)
        # Equal infinities (tokens masked in both models) differ by nothing, but inf - inf is NaN. A NaN that a model
        # made is not hidden by this: its log-probs are NaN as well.
        delta_MV = torch.sub(policy_logits_MV, ref_logits_MV).nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        minus_M, plus_M = perturbation_shifts(delta_MV, policy_logits_MV.softmax(-1), targets_M, eps=self.epsilon)
        return {"shift_minus": minus_M, "shift_plus": plus_M}

    def steps(self, batch: PairBatch) -> Tensor:
        """Steps s of each pair (B,), integers in {-1, 0, 1}."""
        chosen, rejected = batch.statistics_chosen, batch.statistics_rejected
        minus_B, plus_B = (chosen[name] - rejected[name] for name in ("shift_minus", "shift_plus"))
        return decide(minus_B, plus_B)

    @torch.no_grad()
    def beta(self, batch: LossBatch) -> Tensor:
        """beta~ of each pair (B,), in the dtype of the log-probs."""
        if not isinstance(batch, PairBatch):
            raise InputError(
                "kl: epsilon_dpo compares two completions of a prompt; with a loss on single ones use fixed"
            )
        device = batch.policy_chosen.device
        if self.running_beta.device != device:  # once: from then on beta is moved where the step is
            self.running_beta = self.running_beta.to(device)
        beta = self.running_beta.to(batch.policy_chosen.dtype)
        return beta / (1.0 + self.epsilon_step * self.steps(batch).to(beta.dtype))

    def report(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """For each pair (B,): beta~, s, and whether its s is +1 (`step_up`, beta falls) or -1 (`step_down`)."""
        s_B = self.steps(cast(PairBatch, batch)).to(beta.dtype)
        return {"beta": beta, "step": s_B, "step_up": s_B.clamp(min=0.0), "step_down": (-s_B).clamp(min=0.0)}

    def observe(self, means: Mapping[str, Tensor]) -> None:
        """Move the running beta by the means over the optimiser step's pairs, on their device."""
        up, down, eps = means["step_up"], means["step_down"], self.epsilon_step
        beta = self.running_beta.to(up.device)
        if self.beta_update == "mean_step":
            self.running_beta = beta / (1.0 + eps * (up - down))  # authors' code
            return
        # From the shares, in double precision: a mean of float32 betas would drift even where every s is 0.
        self.running_beta = up * (beta / (1.0 + eps)) + down * (beta / (1.0 - eps)) + (1.0 - up - down) * beta  # paper

    def state_dict(self) -> dict[str, Any]:
        """The running beta, in double precision."""
        return {"beta": float(self.running_beta)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved beta."""
        self.running_beta = torch.tensor(float(state["beta"]), dtype=torch.float64)

    def read_vector(self, batch: LossBatch, inputs: Mapping[str, Tensor]) -> LossBatch:
        """Take the decisions `steps` (s of each pair) as given: shifts that lead to them."""
        s_B = inputs["steps"]
        zero_B = torch.zeros_like(s_B)
        return replace(
            cast(PairBatch, batch),
            statistics_chosen={"shift_minus": s_B, "shift_plus": -s_B},
            statistics_rejected={"shift_minus": zero_B, "shift_plus": zero_B},
        )

    def write_vector(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """What a vector may expect besides the loss: `steps` and `beta`, of each pair (B,)."""
        return {"steps": self.steps(cast(PairBatch, batch)).to(beta.dtype), "beta": beta}


@hookimpl
def nashtune_components() -> list[Component]:
    """The KL controller `epsilon_dpo`; its loss is `dpo`."""
    return [Component("kl", "epsilon_dpo", "nashtune_plugins.epsilon_dpo:EpsilonDPOController")]

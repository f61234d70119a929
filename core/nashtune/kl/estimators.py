"""KL divergence between policy and reference, exactly over the vocabulary and estimated from samples; entropy.

Legend: M = completion tokens, V = vocabulary, S = sampled completions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.policy import TokenStatistics


def token_kl(policy_logits_MV: Tensor, ref_logits_MV: Tensor) -> Tensor:
    """KL(pi(.|x, y_<t) || ref(.|x, y_<t)) of every token, exact over the vocabulary, in nats (M,), >= 0."""
    policy_MV = policy_logits_MV.log_softmax(-1)
    return (policy_MV.exp() * (policy_MV - ref_logits_MV.log_softmax(-1))).sum(-1)


def token_entropy(policy_logits_MV: Tensor) -> Tensor:
    """Entropy of pi(.|x, y_<t) at every token, exact over the vocabulary, in nats (M,), in 0 .. log V."""
    terms_MV: Tensor = torch.special.entr(policy_logits_MV.softmax(-1))
    return terms_MV.sum(-1)


def policy_entropy(policy_logits_MV: Tensor, ref_logits_MV: Tensor, targets_M: Tensor) -> dict[str, Tensor]:
    """A statistics function of the policy alone: `entropy`."""
    return {"entropy": token_entropy(policy_logits_MV)}


def with_token_kl(controller: TokenStatistics | None, enabled: bool) -> TokenStatistics:
    """The controller's statistics and, if `enabled`, `token_kl` and `entropy`, as a function for one pass."""

    def statistics(policy_logits_MV: Tensor, ref_logits_MV: Tensor, targets_M: Tensor) -> dict[str, Tensor]:
        found = dict(controller(policy_logits_MV, ref_logits_MV, targets_M)) if controller is not None else {}
        if enabled:
            found["token_kl"] = token_kl(policy_logits_MV, ref_logits_MV)
            found |= policy_entropy(policy_logits_MV, ref_logits_MV, targets_M)
        return found

    return statistics


def sampled_kl(policy_S: Tensor, ref_S: Tensor) -> tuple[float, float]:
    """KL(pi || ref) per completion, from completions drawn from pi, in nats: the estimators k1 and k3.

    k1 is the mean log-ratio (unbiased, can be negative); k3 is the mean of r - 1 - log r with r = ref/pi (unbiased,
    >= 0).
    Source: J. Schulman, "Approximating KL divergence" (2020).

    Args:
        policy_S: log pi(y|x), summed over each completion (S,).
        ref_S: log ref(y|x) of the same completions (S,).
    """
    log_r_S = ref_S.double() - policy_S.double()
    k1 = -log_r_S.mean()
    k3 = (torch.expm1(log_r_S) - log_r_S).mean()
    return float(k1), float(k3)

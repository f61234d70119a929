"""The KL divergence from a reference, estimated from the tokens that were drawn.

    d  = log pi(y_n) - log ref(y_n)
    k1 = d          k2 = d^2 / 2          k3 = exp(-d) - 1 + d

For y drawn from pi, E[k1] = E[k3] = KL(pi || ref); k2 is biased. In a *reward*, k1 gives the gradient of
KL(pi || ref). In a *loss* that is differentiated with the draws held fixed, each token's term has, given its prefix,
the expected gradient 0 for k1, that of KL(pi || ref) for k2 and that of KL(ref || pi) for k3, of that token's choice.
What an early token does to the divergence of later ones is missing from it: for completions of more than one token
neither is the gradient of a divergence between completions, and prefixes come from the policy that drew.

Source: J. Schulman, "Approximating KL divergence" (2020); the gradients are derived here and tested.

Legend: S = completions, M = tokens of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces import RolloutBatch

Estimator = Literal["k1", "k2", "k3"]


def kl_terms(logp_M: Tensor, ref_M: Tensor, estimator: Estimator) -> Tensor:
    """The estimate of each token, in nats (M,), with the gradient of `logp_M`.

    Args:
        logp_M: Log-probs under the policy.
        ref_M: Log-probs under the reference.
        estimator: `k1` (any sign), `k2` or `k3` (both >= 0).
    """
    ratio_M = logp_M - ref_M
    if estimator == "k1":
        return ratio_M
    if estimator == "k2":
        return 0.5 * ratio_M**2
    return (-ratio_M).expm1() + ratio_M


def kl_loss(batch: RolloutBatch, beta: Tensor, estimator: Estimator) -> Tensor:
    """The KL penalty in a loss: β times the estimate of each token under the policy now, with gradient (M,)."""
    return per_token(beta, batch.sequence) * kl_terms(batch.token_logp, batch.anchors["ref"], estimator)


def refuse_k1_in_loss(kl_in: str, estimator: Estimator) -> None:
    """Refuse the combination whose penalty moves nothing.

    Raises:
        ValueError: `kl_in` is "loss" and `estimator` is "k1".
    """
    if kl_in == "loss" and estimator == "k1":
        raise ValueError(
            "kl_in: loss with kl_estimator: k1 has an expected gradient of 0, so that beta would do nothing; "
            "use k2 (given its prefix, each token's gradient of KL(pi || ref)), k3 (of KL(ref || pi)), or kl_in: reward"
        )


def drawn(batch: RolloutBatch) -> Tensor:
    """Log-probs of the tokens under the policy that drew them, without gradient (M,)."""
    return batch.token_logp.detach() if batch.old is None else batch.old


def per_token(value: Tensor, sequence: Tensor) -> Tensor:
    """A value per completion (S,) as one per token (M,); a scalar stays one."""
    return value if value.ndim == 0 else value[sequence]


def per_completion(values_M: Tensor, batch: RolloutBatch) -> Tensor:
    """Sums over the tokens of each completion (S,), in the dtype of the values.

    Accumulated in float64: on a GPU the order of the additions would else show in the last bits.
    """
    wide_M = values_M.double()
    return wide_M.new_zeros(len(batch.lengths)).index_add(0, batch.sequence, wide_M).to(values_M.dtype)

"""k1, k2, k3: their numbers, what they estimate, and what their gradients are when they stand in a loss or a reward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nashtune.rl.estimators import kl_loss, kl_terms, per_completion, per_token, refuse_k1_in_loss
from rl_batches import joined, random_rollouts
from rl_numbers import OLD, REF

P = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
Q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TERMS = {
    "k1": [-0.2, 0.2, -0.1, 0.1, 0.2, -0.4, 0.05],
    "k2": [0.02, 0.02, 0.005, 0.005, 0.02, 0.08, 0.00125],
    "k3": [
        0.021402758160,
        0.018730753078,
        0.005170918076,
        0.004837418036,
        0.018730753078,
        0.091824697641,
        0.001229424501,
    ],
}


@pytest.mark.parametrize("estimator", TERMS)
def test_published_numbers(estimator):
    assert kl_terms(joined(OLD), joined(REF), estimator).tolist() == pytest.approx(TERMS[estimator], abs=1e-12)


def test_k1_and_k3_estimate_the_divergence_and_k2_is_biased():
    terms = {name: kl_terms(P.log(), Q.log(), name) for name in TERMS}
    means = {name: float((P * value).sum()) for name, value in terms.items()}
    exact = float((P * (P / Q).log()).sum())
    assert exact == pytest.approx(0.040078216020, abs=1e-12)
    assert means["k1"] == pytest.approx(exact, abs=1e-15) and means["k3"] == pytest.approx(exact, abs=1e-15)
    assert means["k2"] == pytest.approx(0.033994995717, abs=1e-12)


def test_k3_varies_less_than_k1():
    spread = {
        name: float((P * (kl_terms(P.log(), Q.log(), name) - 0.040078216020) ** 2).sum()) for name in ("k1", "k3")
    }
    assert spread == {"k1": pytest.approx(0.066383728036, abs=1e-10), "k3": pytest.approx(0.007956647231, abs=1e-10)}


def slope(estimator: str) -> list[float]:
    """Expected gradient with respect to the logits of an estimate in a loss, the draws held fixed."""
    logits = P.log().requires_grad_()
    terms = kl_terms(logits.log_softmax(-1), Q.log(), estimator)
    (grad,) = torch.autograd.grad((P * terms).sum(), logits)
    return grad.tolist()


def exact_slope(forward: bool) -> list[float]:
    logits = P.log().requires_grad_()
    p = logits.softmax(-1)
    divergence = (p * (p / Q).log()).sum() if forward else (Q * (Q / p).log()).sum()
    (grad,) = torch.autograd.grad(divergence, logits)
    return grad.tolist()


def test_in_a_loss_k1_moves_nothing():
    assert slope("k1") == pytest.approx([0.0, 0.0, 0.0], abs=1e-16)


def test_in_a_loss_k2_has_the_gradient_of_kl_from_the_reference():
    assert slope("k2") == pytest.approx(exact_slope(forward=True), abs=1e-15)
    assert slope("k2") == pytest.approx([0.085346004464, -0.012023464806, -0.073322539658], abs=1e-12)


def test_in_a_loss_k3_has_the_gradient_of_the_other_divergence():
    assert slope("k3") == pytest.approx(exact_slope(forward=False), abs=1e-15)
    assert slope("k3") == pytest.approx([0.1, 0.0, -0.1], abs=1e-15)


def test_in_a_reward_k1_has_the_gradient_of_kl_from_the_reference():
    logits = P.log().requires_grad_()
    logp = logits.log_softmax(-1)
    (grad,) = torch.autograd.grad((P * kl_terms(logp, Q.log(), "k1").detach() * logp).sum(), logits)
    assert grad.tolist() == pytest.approx(exact_slope(forward=True), abs=1e-15)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_k2_and_k3_are_never_negative(estimator):
    logp, ref = (-torch.linspace(0, 9, 50, dtype=torch.float64) for _ in range(2))
    assert bool((kl_terms(logp, ref.flip(0), estimator) >= 0).all())


def test_k3_of_a_small_difference_keeps_its_digits_in_float32():
    ratio = torch.tensor([1e-3], dtype=torch.float32)
    assert float(kl_terms(ratio, torch.zeros(1), "k3")) == pytest.approx(0.5e-6, rel=1e-3)


def test_beta_per_completion_weighs_its_own_tokens():
    batch = random_rollouts(0, [2, 3])
    beta = torch.tensor([0.5, 2.0], dtype=torch.float64)
    once: Tensor = kl_loss(batch, torch.tensor(1.0, dtype=torch.float64), "k3")
    assert torch.equal(kl_loss(batch, beta, "k3"), once * torch.tensor([0.5, 0.5, 2.0, 2.0, 2.0]))
    assert per_token(torch.tensor(3.0), batch.sequence).ndim == 0
    assert per_completion(torch.ones(5), batch).tolist() == [2.0, 3.0]


def test_k1_in_the_loss_is_refused():
    with pytest.raises(ValueError, match=r"expected gradient of 0.*k2.*k3.*kl_in: reward"):
        refuse_k1_in_loss("loss", "k1")

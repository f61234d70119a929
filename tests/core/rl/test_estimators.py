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


def test_of_two_tokens_k2_has_the_gradient_of_each_token_and_not_of_the_completion() -> None:
    """What the first token does to the divergence of the second is missing, exactly as the pages say."""
    noise = torch.Generator().manual_seed(3)
    first_3, ref_3 = (torch.randn(3, generator=noise, dtype=torch.float64) for _ in range(2))
    second_33, ref_33 = (torch.randn(3, 3, generator=noise, dtype=torch.float64) for _ in range(2))
    first_3.requires_grad_()

    def logs() -> tuple[Tensor, Tensor]:
        """Log-probs of every completion's two tokens (9, 2), under the policy and under the reference."""
        rows = [
            torch.stack([one.log_softmax(-1).repeat_interleave(3), two.log_softmax(-1).flatten()], dim=1)
            for one, two in ((first_3, second_33), (ref_3, ref_33))
        ]
        return rows[0], rows[1]

    policy_92, ref_92 = logs()
    drawn_9 = policy_92.sum(1).exp().detach()

    def slope_of(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, first_3, retain_graph=True)[0]

    loss = (drawn_9[:, None] * kl_terms(policy_92, ref_92, "k2")).sum()
    whole = (policy_92.sum(1).exp() * (policy_92 - ref_92).sum(1)).sum()
    of_first = (first_3.softmax(-1) * (first_3.log_softmax(-1) - ref_3.log_softmax(-1))).sum()
    torch.testing.assert_close(slope_of(loss), slope_of(of_first), rtol=1e-12, atol=1e-14)
    assert float((slope_of(loss) - slope_of(whole)).abs().max()) > 0.01
    sequence = (drawn_9 * 0.5 * (policy_92 - ref_92).sum(1) ** 2).sum()
    torch.testing.assert_close(slope_of(sequence), slope_of(whole), rtol=1e-12, atol=1e-14)

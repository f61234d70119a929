"""epsilon-DPO: decisions, betas and the running beta.

The toy has 4 words and two tokens per completion; the numbers are those of the method's own tables. Pair 1 at eps 0.1:
z^- = 2.4119899964 > z = 2.0606081585 > z^+ = 1.7177483928, so s = +1 and beta~ = 0.1/1.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from method_batches import assert_digits, call, column, gradients, pairs
from method_numbers import TOY
from nashtune.errors import InputError
from nashtune.interfaces import ExampleBatch, PairBatch
from nashtune.kl.fixed import FixedKL
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import build, resolve
from nashtune_plugins.dpo import DPOLoss
from nashtune_plugins.epsilon_dpo import EpsilonDPOController, decide

SHEET = {  # eps -> z^-, z^+, s, loss, gradient
    0.1: (
        [2.4119899964, -0.6696665595, 0.0890766238],
        [1.7177483928, -0.3806690743, 0.0874930534],
        [1, -1, 0],
        [0.5662001895, 0.7661818328, 0.6428706062],
        [-0.0393019622, -0.0594684101, -0.0474219054],
    ),
    0.01: (
        [2.0953666792, -0.5376226167, 0.0943867434],
        [2.0259348928, -0.5087228890, 0.0943134568],
        [1, -1, 0],
        [0.5557791066, 0.7593371216, 0.6428706062],
        [-0.0422153295, -0.0537397439, -0.0474219054],
    ),
}
Z = [2.0606081585, -0.5231525680, 0.0944111729]


def controller(epsilon: float = 0.01, **options: object) -> EpsilonDPOController:
    return EpsilonDPOController(beta=0.1, epsilon=epsilon, **options)


def side(name: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Policy logits, reference logits (B, T, V) and tokens (B, T) of one side of the toy."""
    policy, ref = (torch.tensor(TOY[f"{who}_logits_{name}"], dtype=dtype) for who in ("policy", "ref"))
    return policy, ref, torch.tensor(TOY[f"{name}_tokens"])


def logp(logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    return logits_BTV.log_softmax(-1).gather(-1, tokens_BT.unsqueeze(-1)).squeeze(-1).sum(-1)


Side = tuple[Tensor, Tensor, Tensor]


def batch_of(kl: EpsilonDPOController, chosen: Side, rejected: Side) -> PairBatch:
    """What an engine would make of logits: log-probs and summed statistics."""
    data: dict[str, list[float]] = {}
    statistics: list[dict[str, Tensor]] = []
    for name, (policy, ref, tokens) in (("chosen", chosen), ("rejected", rejected)):
        data[f"policy_{name}"], data[f"ref_{name}"] = logp(policy, tokens).tolist(), logp(ref, tokens).tolist()
        data[f"len_{name}"] = [tokens.shape[1]] * len(tokens)
        flat = kl.token_statistics(policy.flatten(0, 1), ref.flatten(0, 1), tokens.flatten())
        statistics.append({key: value.view(tokens.shape).sum(-1) for key, value in flat.items()})
    return replace(pairs(data, chosen[0].dtype), statistics_chosen=statistics[0], statistics_rejected=statistics[1])


def random_sides(count: int, tokens: int, vocabulary: int, distance: float, seed: int = 0) -> tuple[Side, Side]:
    """Logits of a reference and of a policy `distance` away from it, with completions sampled from the policy."""
    noise = torch.Generator().manual_seed(seed)
    sides = []
    for _ in range(2):
        ref = 3.0 * torch.randn(count, tokens, vocabulary, generator=noise)
        policy = ref + distance * torch.randn(count, tokens, vocabulary, generator=noise)
        drawn = torch.multinomial(policy.flatten(0, 1).softmax(-1), 1, generator=noise).view(count, tokens)
        sides.append((policy, ref, drawn))
    return sides[0], sides[1]


def mixed(sides: tuple[Side, Side], weight: float, dtype: torch.dtype, mix: Callable[..., Tensor]) -> Tensor:
    """z of each pair under mixed logits, the way the formula is written."""
    ratios = [logp(mix(p.to(dtype), r.to(dtype), weight), y).double() for p, r, y in sides]
    return ratios[0] - ratios[1]


def literal(policy: Tensor, ref: Tensor, weight: float) -> Tensor:
    return weight * policy + (1 - weight) * ref


def through_delta(policy: Tensor, ref: Tensor, weight: float) -> Tensor:
    return policy + (weight - 1) * (policy - ref)


def decisions(sides: tuple[Side, Side], eps: float, dtype: torch.dtype, mix: Callable[..., Tensor]) -> Tensor:
    minus, middle, plus = (mixed(sides, weight, dtype, mix) for weight in (1 + eps, 1.0, 1 - eps))
    return decide(minus - middle, plus - middle)


@pytest.mark.parametrize("eps", [0.1, 0.01])
def test_published_numbers(eps):
    kl = controller(eps)
    batch = batch_of(kl, side("chosen"), side("rejected"))
    z_minus, z_plus, s, loss, grad = SHEET[eps]
    z = batch.policy_chosen - batch.policy_rejected
    assert_digits(z, Z)
    for name, sheet in (("shift_minus", z_minus), ("shift_plus", z_plus)):
        assert_digits(z + batch.statistics_chosen[name] - batch.statistics_rejected[name], sheet)
    assert kl.steps(batch).tolist() == s
    beta = kl.beta(batch)
    torch.testing.assert_close(beta, column([0.1 / (1 + eps), 0.1 / (1 - eps), 0.1]), rtol=0, atol=1e-16)
    output = call(DPOLoss(), batch, beta)
    assert_digits(output.values, loss)
    chosen, rejected = gradients(output, batch)
    assert_digits(chosen, grad)
    assert torch.equal(rejected, -chosen)


def test_bf16_flips_decisions_and_the_controller_upcasts():
    """eps = 0.01 is near bf16's resolution: mixing in bf16 decides a third and more of the pairs differently."""
    sides = random_sides(24, 64, 500, 0.3)
    truth = decisions(sides, 0.01, torch.float64, literal)
    assert (truth != 0).all()
    wrong = (decisions(sides, 0.01, torch.bfloat16, literal) != truth).float().mean()
    assert wrong > 0.3
    assert torch.equal(controller().steps(batch_of(controller(), *sides)), truth)
    half = tuple((p.bfloat16(), r.bfloat16(), y) for p, r, y in sides)
    rounded = decisions(half, 0.01, torch.float64, literal)
    assert torch.equal(controller().steps(batch_of(controller(), *half)), rounded)


def test_float32_keeps_its_digits_over_long_completions():
    """Close to the reference, differences of float32 sums drown in rounding; sums of differences do not."""
    sides = random_sides(24, 512, 300, 0.003)
    truth = decisions(sides, 0.01, torch.float64, through_delta)
    assert (truth != 0).all()
    assert not torch.equal(decisions(sides, 0.01, torch.float32, through_delta), truth)
    assert torch.equal(controller().steps(batch_of(controller(), *sides)), truth)


def test_policy_equal_to_reference_moves_nothing():
    """Bit for bit; the formula as written gives spurious steps in float32 from rounding alone."""
    sides = random_sides(48, 64, 200, 0.0)
    assert (decisions(sides, 0.01, torch.float32, literal) != 0).any()
    kl = controller()
    batch = batch_of(kl, *sides)
    assert (kl.steps(batch) == 0).all()
    values = call(DPOLoss(), batch, kl.beta(batch)).values
    torch.testing.assert_close(values, torch.full_like(values, math.log(2.0)))


def test_tokens_masked_in_both_models_change_nothing():
    kl, (chosen, rejected) = controller(), random_sides(4, 8, 20, 0.5)
    open_batch = batch_of(kl, chosen, rejected)

    def masked(one: Side) -> Side:
        policy, ref, tokens = one
        wall = torch.full((*policy.shape[:2], 3), -math.inf)
        return torch.cat([policy, wall], -1), torch.cat([ref, wall], -1), tokens

    for name, value in batch_of(kl, masked(chosen), masked(rejected)).statistics_chosen.items():
        torch.testing.assert_close(value, open_batch.statistics_chosen[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eps_0_is_dpo_bit_for_bit(dtype):
    kl = controller(0.0)
    batch = batch_of(kl, side("chosen", dtype), side("rejected", dtype))
    beta = kl.beta(batch)
    fixed = FixedKL(beta=0.1).beta(batch)
    assert beta.dtype == dtype and torch.equal(beta, fixed.expand(3))
    ours, plain = call(DPOLoss(), batch, beta), call(DPOLoss(), batch, fixed)
    assert torch.equal(ours.values, plain.values)
    assert all(torch.equal(a, b) for a, b in zip(gradients(ours, batch), gradients(plain, batch), strict=True))


@pytest.mark.parametrize("rule", ["mean_beta", "mean_step"])
def test_a_step_without_decisions_leaves_beta_bit_for_bit(rule):
    """Also when the logged means came from float32 betas, which differ from the running one in the eighth digit."""
    kl = controller(beta_update=rule)
    means = tensors(beta=float(torch.tensor(0.1)), step=0.0, step_up=0.0, step_down=0.0)
    for _ in range(100):
        kl.observe(means)
    assert float(means["beta"]) != 0.1 and kl.state_dict() == {"beta": 0.1}


def test_single_tokens_are_relaxed_where_the_margin_is_positive():
    """One token: z is linear in lambda, so s = sign(z - gamma), for every pair."""
    chosen, rejected = random_sides(1000, 1, 4, 1.0)
    rejected = (chosen[0], chosen[1], (chosen[2] + 1) % 4)  # the same prompt: both tokens from one distribution
    kl = controller()
    batch = batch_of(
        kl, *(tuple(part.double() if part.is_floating_point() else part for part in s) for s in (chosen, rejected))
    )
    ref_margin = batch.anchors["ref"].chosen - batch.anchors["ref"].rejected
    assert torch.equal(kl.steps(batch), torch.sign(batch.policy_chosen - batch.policy_rejected - ref_margin).long())


def test_small_eps_compares_the_margin_with_the_margin_of_reverse_kls():
    """First order: s = sign of (h_w - K_w) - (h_l - K_l), K = sum over tokens of KL(pi || pi_ref)."""
    sides = tuple((p.double(), r.double(), y) for p, r, y in random_sides(200, 6, 10, 0.7))
    kl = controller(1e-6)
    slopes = []
    for policy, ref, tokens in sides:
        log_policy, log_ref = policy.log_softmax(-1), ref.log_softmax(-1)
        divergence = (log_policy.exp() * (log_policy - log_ref)).sum((-1, -2))
        slopes.append(logp(policy, tokens) - logp(ref, tokens) - divergence)
    assert torch.equal(kl.steps(batch_of(kl, *sides)), torch.sign(slopes[0] - slopes[1]).long())


def test_decisions_do_not_depend_on_micro_batches_nor_order():
    sides = random_sides(12, 5, 10, 1.0)
    kl = controller(0.1)
    together = kl.steps(batch_of(kl, *sides))
    assert together.unique().numel() > 1
    for size in (1, 5):
        parts = [tuple(tuple(x[i : i + size] for x in one) for one in sides) for i in range(0, 12, size)]
        assert torch.equal(torch.cat([kl.steps(batch_of(kl, *part)) for part in parts]), together)
    backwards = tuple(tuple(x.flip(0) for x in one) for one in sides)
    assert torch.equal(kl.steps(batch_of(kl, *backwards)).flip(0), together)


def test_deciding_and_reporting_change_no_state():
    kl = controller()
    batch = batch_of(kl, side("chosen"), side("rejected"))
    for _ in range(3):
        report = kl.report(batch, kl.beta(batch))
    assert kl.state_dict() == {"beta": 0.1}
    assert {name: value.tolist() for name, value in report.items() if name != "beta"} == {
        "step": [1.0, -1.0, 0.0],
        "step_up": [1.0, 0.0, 0.0],
        "step_down": [0.0, 1.0, 0.0],
    }


def shares(*s: int) -> dict[str, torch.Tensor]:
    up, down = sum(one == 1 for one in s) / len(s), sum(one == -1 for one in s) / len(s)
    return tensors(step=up - down, step_up=up, step_down=down)


def tensors(**means: float) -> dict[str, torch.Tensor]:
    """As they come from an optimiser step."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in means.items()}


@pytest.mark.parametrize(
    ("rule", "s", "eps", "following"),
    [
        ("mean_beta", (1, -1, 0, 0), 0.1, 0.100505050505),
        ("mean_step", (1, -1, 0, 0), 0.1, 0.1),
        ("mean_beta", (1, 1, -1, 0), 0.01, 0.099757475748),
        ("mean_step", (1, 1, -1, 0), 0.01, 0.099750623441),
        ("mean_beta", (1, -1, 0), 0.1, 0.100673400673),
        ("mean_beta", (1, -1, 0), 0.01, 0.100006667333),
    ],
)
def test_the_two_update_rules(rule, s, eps, following):
    kl = controller(eps, beta_update=rule)
    kl.observe(shares(*s))
    assert kl.running_beta == pytest.approx(following, abs=5e-13)


@pytest.mark.parametrize("rule", ["mean_beta", "mean_step"])
def test_one_epoch_of_mean_step_a_quarter_takes_beta_from_0_01_to_0_0031(rule):
    kl = EpsilonDPOController(beta=0.01, epsilon=0.01, beta_update=rule)
    for _ in range(467):
        kl.observe(shares(1, 0, 0, 0))
    assert kl.running_beta == pytest.approx(0.0031, abs=5e-5)


@pytest.mark.parametrize("rule", ["mean_beta", "mean_step"])
def test_all_up_divides_beta_each_step_and_the_bounds_hold(rule):
    kl = controller(0.1, beta_update=rule)
    for _ in range(5):
        kl.observe(shares(1, 1, 1))
    assert kl.running_beta == pytest.approx(0.1 * 1.1**-5, rel=1e-14)
    kl.observe(shares(-1, -1))
    assert kl.running_beta == pytest.approx(0.1 * 1.1**-5 / 0.9, rel=1e-14)


def test_separate_sizes_for_criterion_and_step():
    kl = EpsilonDPOController(beta=0.1, epsilon=0.01, epsilon_step=0.1)
    batch = batch_of(kl, side("chosen"), side("rejected"))
    torch.testing.assert_close(kl.beta(batch), column([0.1 / 1.1, 0.1 / 0.9, 0.1]))
    assert_digits(
        batch.policy_chosen
        - batch.policy_rejected
        + batch.statistics_chosen["shift_minus"]
        - batch.statistics_rejected["shift_minus"],
        SHEET[0.01][0],
    )
    assert EpsilonDPOController(beta=0.1, epsilon=0.02).epsilon_step == 0.02
    assert EpsilonDPOController(beta=0.1, epsilon=0.02, epsilon_step=0.0).epsilon_step == 0.0


def test_running_beta_is_restored_exactly():
    """Restarting at the first beta after a resume is a defect of the authors' code."""
    kl = controller()
    for s in ((1, 1, -1), (1, 0, 0), (0, -1, 1, 1)):
        kl.observe(shares(*s))
    resumed = controller()
    resumed.load_state_dict(kl.state_dict())
    for one in (kl, resumed):
        one.observe(shares(1, -1, -1))
    assert kl.running_beta == resumed.running_beta != 0.1


def test_label_smoothing_is_that_of_cdpo():
    kl = controller(0.1)
    batch = batch_of(kl, side("chosen"), side("rejected"))
    beta = kl.beta(batch)
    chosen, rejected = batch.log_ratios()
    expected = call(DPOLoss(), batch, beta).values + 0.1 * beta * (chosen - rejected)
    torch.testing.assert_close(call(DPOLoss(label_smoothing=0.1), batch, beta).values, expected)


def test_larger_eps_moves_beta_faster_on_a_trained_toy():
    """Prefix-dependent policies over 4 words and 2 tokens, 200 Adam steps: beta falls, and more with a larger eps."""
    noise = torch.Generator().manual_seed(1)
    ref = torch.randn(5, 4, generator=noise, dtype=torch.float64)  # row 0: first token; row 1 + t: the token after t
    tokens = torch.randint(0, 4, (2, 8, 2), generator=noise)
    final = []
    for eps in (0.0, 0.005, 0.01, 0.02):
        kl, policy = controller(eps), ref.clone().requires_grad_()
        optimiser = torch.optim.Adam([policy], lr=0.01)
        for _ in range(200):
            rows = [torch.stack([torch.zeros(8, dtype=torch.long), 1 + one[:, 0]], -1) for one in tokens]
            made = batch_of(kl, *((policy.detach()[r], ref[r], one) for r, one in zip(rows, tokens, strict=True)))
            live = [logp(policy[r], one) for r, one in zip(rows, tokens, strict=True)]
            made = replace(made, policy_chosen=live[0], policy_rejected=live[1])
            beta = kl.beta(made)
            optimiser.zero_grad()
            call(DPOLoss(), made, beta).values.mean().backward()
            optimiser.step()
            kl.observe({name: value.double().mean() for name, value in kl.report(made, beta).items()})
        final.append(kl.running_beta)
    assert final[0] == 0.1 and final == sorted(final, reverse=True) and final[-1] < 0.09


@pytest.mark.parametrize(("option", "value"), [("epsilon", 1.0), ("epsilon_step", 1.5)])
def test_perturbations_from_1_on_are_refused(option, value):
    override = Override(("kl", option), value, f"--spec.kl.{option}")
    with pytest.raises(InputError, match=rf"{option} is {value}; it must be in \[0, 1\)"):
        build(resolve("epsilon_dpo", [override]).kl)


def test_unpaired_batches_are_refused():
    batch = ExampleBatch(policy=column([0.0]), length=column([1.0]), desirable=column([1.0]).bool())
    with pytest.raises(InputError, match="use fixed"):
        controller().beta(batch)

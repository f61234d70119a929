"""The mixture sampler against closed forms: arXiv:2312.00886, softmax((1-w) logits_policy + w logits_start)."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import nullcontext

import pytest
import torch

from live_models import Live, bigram_model, sharpened
from nashtune.errors import InputError
from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig
from nashtune.samplers.decode_model import mix_logits
from nashtune.samplers.mixture import MixtureSampler, start_logits
from nashtune.samplers.policy import PolicySampler

PROMPTS = [[10, 20, 30], [11], [5, 6, 7, 8, 9, 40, 41], [60, 61], [90, 91, 92, 93]]


@pytest.fixture(scope="module")
def start(untied):
    """Another random model than the policy."""
    return sharpened(untied, seed=1)


def mixture(live, start, **options):
    model = start if isinstance(start, tuple) else (start, nullcontext)
    return live.attached(MixtureSampler(**{"max_new_tokens": 8, **options}), start_logits=model)


def logits(model, prompt, tokens):
    with torch.no_grad():
        return model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].double()


def closed_form(live, start, drawn, weight, temperature=1.0):
    """Log-probs of the drawn tokens, from whole forward passes without a cache."""
    prompt = PROMPTS[drawn.prompt]
    mixed = (1 - weight) * logits(live.model, prompt, drawn.token_ids) + weight * logits(start, prompt, drawn.token_ids)
    logp = torch.log_softmax(mixed / temperature, -1)
    return logp[torch.arange(len(drawn.token_ids)), list(drawn.token_ids)].tolist()


# ---------------------------------------------------------------- the paper's numbers


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0.0, (0.6, 0.3, 0.1)),
        (0.125, (0.5462188721, 0.3339703841, 0.1198107438)),
        (0.5, (0.3819660113, 0.4270509831, 0.1909830056)),
        (1.0, (0.2, 0.5, 0.3)),
    ],
)
def test_the_mixture_of_two_distributions(weight, expected):
    policy, start = (torch.tensor(p, dtype=torch.float64).log() for p in ((0.6, 0.3, 0.1), (0.2, 0.5, 0.3)))
    mixed = torch.softmax(mix_logits(policy + 3.0, start - 5.0, weight), -1)  # constants on the logits cancel
    assert mixed.tolist() == pytest.approx(expected, abs=1e-10)


def test_tokens_that_a_model_rules_out_leave_the_ends_of_the_mixture_finite():
    policy, start = torch.tensor([0.0, -torch.inf]), torch.tensor([-torch.inf, 0.0])
    assert mix_logits(policy, start, 0.0).tolist() == policy.tolist()
    assert mix_logits(policy, start, 1.0).tolist() == start.tolist()


# states: a, b, begin, EOS (never drawn)
POLICY = [[0.2, 0.8, 0, 0], [0.7, 0.3, 0, 0], [0.9, 0.1, 0, 0], [0, 0, 0, 1]]
START = [[0.6, 0.4, 0, 0], [0.1, 0.9, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 0, 1]]
SEQUENCES = list(itertools.product((0, 1), repeat=2))  # aa, ab, ba, bb
TOKEN_MIXTURE = (0.2696938457, 0.4404082058, 0.0978076120, 0.1920903366)
SEQUENCE_MIXTURE = (0.2811223229, 0.4590708309, 0.0876552847, 0.1721515616)
DRAWS = 4000


def two_letters(untied):
    live = Live(untied, bigram_model(POLICY))
    live.tokenizer.eos_token_id = 3  # inside the four-token vocabulary
    live.tokenizer.pad_token_id = 3
    return live


def probabilities(drawn):
    return {c.token_ids: torch.tensor(c.token_logp).sum().exp().item() for c in drawn}


def shares(drawn):
    counts = Counter(c.token_ids for c in drawn)
    return [counts[sequence] / len(drawn) for sequence in SEQUENCES]


def test_draws_and_log_probs_follow_the_token_mixture_and_not_the_sequence_mixture(untied):
    sampler = mixture(two_letters(untied), bigram_model(START), max_new_tokens=2)
    drawn = sampler.sample([[2]], DRAWS, seed=0, reference_weight=0.5)
    found = probabilities(drawn)
    assert [found[sequence] for sequence in SEQUENCES] == pytest.approx(TOKEN_MIXTURE, abs=1e-6)
    errors = [(p * (1 - p) / DRAWS) ** 0.5 for p in TOKEN_MIXTURE]
    for share, p, error in zip(shares(drawn), TOKEN_MIXTURE, errors, strict=True):
        assert abs(share - p) < 3 * error
    chi_square = sum(DRAWS * (s - p) ** 2 / p for s, p in zip(shares(drawn), SEQUENCE_MIXTURE, strict=True))
    assert chi_square > 16.3  # the sequence mixture is rejected at 0.1%, 3 degrees of freedom


@pytest.mark.parametrize("weight", [0.0, 0.125, 1.0])
def test_frequencies_at_other_weights(untied, weight):
    sampler = mixture(two_letters(untied), bigram_model(START), max_new_tokens=2, coefficient=weight)
    drawn = sampler.sample([[2]], DRAWS, seed=1)
    mixed = torch.softmax(
        (1 - weight) * torch.tensor(POLICY)[:3, :2].log() + weight * torch.tensor(START)[:3, :2].log(), -1
    )
    expected = [(mixed[2, a] * mixed[a, b]).item() for a, b in SEQUENCES]
    found = probabilities(drawn)
    assert [found[sequence] for sequence in SEQUENCES] == pytest.approx(expected, abs=1e-6)
    for share, p in zip(shares(drawn), expected, strict=True):
        assert abs(share - p) < 3 * (p * (1 - p) / DRAWS) ** 0.5


# ---------------------------------------------------------------- two caches


@pytest.mark.parametrize(("weight", "temperature"), [(0.25, 1.0), (0.5, 0.7), (1.0, 1.5)])
def test_log_probs_equal_the_closed_form_with_padding_and_caches(live, start, weight, temperature):
    drawn = mixture(live, start, temperature=temperature).sample(PROMPTS, 3, seed=5, reference_weight=weight)
    assert len({c.token_ids for c in drawn}) > 10
    for c in drawn:
        assert c.token_logp == pytest.approx(closed_form(live, start, c, weight, temperature), abs=1e-5)


def test_top_p_applies_to_the_mixture(live, start):
    drawn = mixture(live, start, top_p=0.7).sample(PROMPTS, 3, seed=5, reference_weight=0.5)
    for c in drawn:
        full = [a + torch.tensor(m).log().item() for a, m in zip(c.token_logp, c.kept_mass, strict=True)]
        assert full == pytest.approx(closed_form(live, start, c, 0.5), abs=1e-5)
        assert min(c.kept_mass) >= 0.7 - 1e-6


def test_weight_zero_is_the_policy_and_never_runs_the_start(live, start, monkeypatch):
    expected = live.attached(PolicySampler(max_new_tokens=8)).sample(PROMPTS, 3, seed=5)
    monkeypatch.setattr(start, "forward", None)
    assert mixture(live, start).sample(PROMPTS, 3, seed=5, reference_weight=0.0) == expected


def test_weight_one_is_the_start_policy(untied, live, start):
    expected = Live(untied, start).attached(PolicySampler(max_new_tokens=8)).sample(PROMPTS, 3, seed=5)
    found = mixture(live, start, coefficient=1.0).sample(PROMPTS, 3, seed=5)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.token_logp == pytest.approx(other.token_logp, abs=1e-6)


@pytest.mark.parametrize("batch_tokens", [1, 45])
def test_batch_mates_and_splits_over_ranks_do_not_matter(live, start, batch_tokens):
    whole = mixture(live, start).sample(PROMPTS, 2, seed=7, reference_weight=0.3)
    sampler = mixture(live, start, batch_tokens=batch_tokens)
    found = {}
    for rank in range(2):
        part = sampler.sample(PROMPTS[rank::2], 2, seed=7, indices=range(rank, 5, 2), reference_weight=0.3)
        found |= {(rank + 2 * c.prompt, c.k): c.token_ids for c in part}
    assert found == {(c.prompt, c.k): c.token_ids for c in whole}


def test_rows_that_end_early_leave_their_batch_mates_alone(live, start):
    drawn = mixture(live, start, max_new_tokens=24, temperature=3.0).sample(PROMPTS, 20, seed=2, reference_weight=0.5)
    ends = {len(c.token_ids) for c in drawn if c.finish == "stop"}
    assert len(ends) > 3 and any(c.finish == "length" for c in drawn)
    for c in drawn:
        assert c.token_logp == pytest.approx(closed_form(live, start, c, 0.5, 3.0), abs=1e-5)


# ---------------------------------------------------------------- the starting policy under LoRA


@pytest.fixture
def adapted(untied):
    policy = HFPolicy(PolicyConfig(path=str(untied), lora=LoraSettings(r=2)))
    policy.load()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=draw))
    return policy


def test_under_lora_the_start_is_the_base_model_in_the_same_module(untied, adapted):
    live = Live(untied, adapted.model)
    model, context = start_logits(adapted)
    assert model is adapted.model
    base = HFPolicy(PolicyConfig(path=str(untied)))
    base.load()
    for weight in (0.5, 1.0):
        for c in mixture(live, (model, context)).sample(PROMPTS, 2, seed=5, reference_weight=weight):
            assert c.token_logp == pytest.approx(closed_form(live, base.model, c, weight), abs=1e-5)
            assert c.token_logp != pytest.approx(closed_form(live, adapted.model, c, weight), abs=1e-2)


def test_the_trap_that_get_base_model_keeps_the_adapter_on(untied, adapted):
    """With it as the start the mixture would be the policy, whatever the weight."""
    tokens = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        policy = adapted.model(tokens).logits
        assert torch.equal(adapted.model.get_base_model()(tokens).logits, policy)
        model, context = start_logits(adapted)
        with context():
            assert (model(tokens).logits - policy).abs().max() > 0.01


def test_the_adapter_is_on_and_trainable_again_afterwards(untied, adapted):
    tokens = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        before = adapted.model(tokens).logits
    trainable = set(adapted.trainable_state_dict())
    mixture(Live(untied, adapted.model), start_logits(adapted)).sample(PROMPTS, 1, seed=5, reference_weight=0.5)
    assert set(adapted.trainable_state_dict()) == trainable
    with torch.no_grad():
        assert torch.equal(adapted.model(tokens).logits, before)


@pytest.mark.parametrize("sft", [False, True])
def test_without_a_fresh_adapter_the_start_is_a_frozen_model_of_its_own(untied, sft_adapter, tiny, sft):
    policy = HFPolicy(PolicyConfig(path=str(sft_adapter if sft else untied)))
    policy.load()
    tokens = torch.tensor([PROMPTS[2]])
    with torch.no_grad():
        at_start = policy.model.eval()(tokens).logits
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1)
        model, context = start_logits(policy)  # also in a resumed run, whose live weights are others
        with context():
            assert torch.equal(model(tokens).logits, at_start)
    assert not any(parameter.requires_grad for parameter in model.parameters())


# ---------------------------------------------------------------- who says the weight


def test_the_weight_comes_from_the_method_or_from_the_coefficient(live, start):
    from_method = mixture(live, start).sample(PROMPTS, 1, seed=5, reference_weight=0.25)
    assert mixture(live, start, coefficient=0.25).sample(PROMPTS, 1, seed=5) == from_method
    assert mixture(live, start, coefficient=0.25).sample(PROMPTS, 1, seed=5, reference_weight=0.25) == from_method


def test_a_weight_that_nobody_or_two_say_is_refused(live, start):
    with pytest.raises(InputError, match=r"neither the loss nor the schedule says one; set spec\.sampler\.coefficient"):
        mixture(live, start).sample(PROMPTS, 1, seed=5)
    with pytest.raises(InputError, match=r"0\.5 is set, but the method draws from a mixture with weight 0\.25"):
        mixture(live, start, coefficient=0.5).sample(PROMPTS, 1, seed=5, reference_weight=0.25)
    with pytest.raises(InputError, match=r"is 1\.5; it must lie in \[0, 1\]"):
        mixture(live, start).sample(PROMPTS, 1, seed=5, reference_weight=1.5)
    with pytest.raises(RuntimeError, match="start_logits"):
        live.attached(MixtureSampler())

"""The draw: exact at every place of the vocabulary, reproducible, and the nucleus against a plain sort."""

from __future__ import annotations

import math

import pytest
import torch

from nashtune.samplers.noise import draw, invert, nucleus, stream_seed, uniforms

LAST = 1 - 2.0**-53  # the largest number that a stream gives


def first_beyond(prob, uniform):
    """The definition, in one float64 sum per row."""
    upto = prob.double().cumsum(-1)
    return torch.searchsorted(upto, uniform[:, None] * upto[:, -1:], right=True)[:, 0]


@pytest.mark.parametrize("size", [1, 4, 127, 128, 129, 1000, 49152])
def test_the_token_is_where_the_cumulative_probability_exceeds_the_number(size):
    generator = torch.Generator().manual_seed(size)
    prob = (4 * torch.randn(50, size, generator=generator)).softmax(-1)
    uniform = torch.rand(50, generator=generator, dtype=torch.float64)
    found, expected = invert(prob, uniform), first_beyond(prob, uniform)
    # float32 block sums may move a number across the edge of a token; no further than rounding reaches
    assert (found == expected).float().mean() > 0.95
    upto = torch.nn.functional.pad(prob.double().cumsum(-1), (1, 0))
    aim = uniform * upto[:, -1]
    low, high = (upto.gather(1, (found + more)[:, None])[:, 0] for more in (0, 1))
    assert bool(((low - 1e-6 <= aim) & (aim <= high + 1e-6)).all())


@pytest.mark.parametrize("size", [4, 300, 49152])
def test_the_ends_of_the_number_are_the_first_and_the_last_token_that_can_be_drawn(size):
    prob = torch.zeros(2, size)
    prob[:, 1 : size - 1] = torch.rand(size - 2, generator=torch.Generator().manual_seed(0)) + 0.1
    assert invert(prob / prob.sum(-1, keepdim=True), torch.tensor([0.0, LAST]).double()).tolist() == [1, size - 2]


def test_a_token_without_probability_is_never_drawn():
    logits = torch.full((20000, 400), -torch.inf)
    logits[:, [3, 127, 128, 390]] = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    drawn = draw(logits, torch.rand(20000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1.0)
    share = torch.bincount(drawn.token, minlength=400) / 20000
    assert torch.allclose(share[[3, 127, 128, 390]], torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.014)  # 4 sigma
    assert share.sum().item() == pytest.approx(share[[3, 127, 128, 390]].sum().item(), abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1e-3, 0.25, 0.5, 0.9, 1.0])
def test_the_tail_is_exact_beyond_float32(share):
    """49,999 tokens that have 1e-9 together: no float32 sum behind the first token would know them."""
    prob = torch.full((1, 50000), 1e-9 / 49999)
    prob[:, 0] = 1.0
    token = invert(prob, torch.tensor([(1 + share * 1e-9) / (1 + 1e-9) - 2.0**-53], dtype=torch.float64))
    assert token.item() == pytest.approx(50000 * share, abs=130)


def test_rare_neighbours_of_a_likely_token_have_their_share():
    prob = torch.full((1, 100), 1e-12)
    prob[:, 50] = 1.0
    for rare, uniform in {20: 20.5e-12, 50: 0.5, 51: 1 - 48.5e-12, 99: 1 - 0.5e-12}.items():
        assert invert(prob, torch.tensor([uniform], dtype=torch.float64)).tolist() == [rare]


@pytest.mark.parametrize("temperature", [0.5, 0.8, 1.0, 2.0])
def test_draws_follow_the_distribution_and_so_do_their_log_probs(temperature):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    uniform = uniforms([stream_seed(0, 0, i, 0) for i in range(4000)], 1)[:, 0]
    drawn = draw(logits.expand(4000, 4), uniform, temperature)
    expected = torch.softmax(logits / temperature, -1)
    share = torch.bincount(drawn.token, minlength=4) / 4000
    for found, p in zip(share.tolist(), expected.tolist(), strict=True):
        assert abs(found - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    assert torch.allclose(drawn.logp, expected.log()[drawn.token], atol=1e-6)
    assert drawn.kept is None


def test_the_log_prob_of_a_rare_token_is_exact():
    logits = torch.zeros(1, 1000)
    logits[0, 999] = -60.0
    found = draw(logits, torch.tensor([LAST]).double(), 1.0)
    assert found.token.item() == 998  # e^-60 lies beyond the last number
    logits[0, :999] = -80.0 + torch.arange(999) / 999
    logits[0, 0] = 0.0
    rare = draw(logits.double(), torch.tensor([LAST]).double(), 1.0)
    assert rare.logp.item() == pytest.approx(logits.double().log_softmax(-1)[0, rare.token].item(), abs=1e-12)


def test_greedy_takes_the_most_likely_and_logits_that_are_not_finite_are_told():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, torch.nan, 2.0]])
    greedy = draw(logits, torch.zeros(2).double(), 0.0)
    assert greedy.token[0] == 1 and greedy.logp[0] == 0 and math.isnan(greedy.logp[1])
    for top_p in (1.0, 0.5):
        drawn = draw(logits, torch.full((2,), 0.5).double(), 1.0, top_p)
        assert math.isfinite(drawn.logp[0]) and not math.isfinite(drawn.logp[1])
        assert 0 <= drawn.token[1] < 3


def test_rows_do_not_read_each_other():
    generator = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(6, 500, generator=generator), torch.rand(6, generator=generator).double()
    for top_p in (1.0, 0.9):
        together = draw(logits, uniform, 1.0, top_p)
        for row in range(6):
            alone = draw(logits[row : row + 1], uniform[row : row + 1], 1.0, top_p)
            assert alone.token == together.token[row] and alone.logp == together.logp[row]


def plain_nucleus(logp, top_p):
    order = sorted(range(len(logp)), key=lambda token: (-logp[token], token))
    kept, mass = [], 0.0
    for token in order:
        if kept and mass >= top_p:
            break
        kept.append(token)
        mass += math.exp(logp[token])
    return set(kept), mass


@pytest.mark.parametrize("size", [10, 3000])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("ties", [False, True])
def test_the_nucleus_equals_a_plain_sort(size, top_p, ties):
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if ties:
        logits = logits.mul(2).round().div(2)
    logp = logits.log_softmax(-1)
    found, mass = nucleus(logp, top_p)
    for row in range(3):
        kept, expected = plain_nucleus(logp[row].tolist(), top_p)
        assert set(found[row].isfinite().nonzero()[:, 0].tolist()) == kept
        assert mass[row].item() == pytest.approx(expected, abs=1e-9)
        assert found[row].exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_streams_are_pinned_and_a_longer_one_begins_like_a_shorter_one():
    seed = stream_seed(0, 0, 0, 0)
    assert torch.equal(uniforms([seed, 7], 5), uniforms([seed, 7], 300)[:, :5])
    numbers = uniforms(range(200), 200)
    assert numbers.dtype == torch.float64 and 0 <= numbers.min() and numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.006) and len(numbers.unique()) == 40000
    assert uniforms([seed], 2)[0].tolist() == [0.7232024441390291, 0.23199498452103418]  # recorded runs hang on it

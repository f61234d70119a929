"""Probabilities of both kinds of oracle, and the arithmetic that keeps them antisymmetric."""

from __future__ import annotations

import math

import pytest
import torch

from nashtune.data.texts import check_template, fill, text_of
from nashtune.errors import InputError
from nashtune.oracles.chosen_by_run import ChosenByRun
from nashtune.oracles.compare import probabilities
from nashtune.oracles.probability import around_half, both_orders, bradley_terry
from nashtune.oracles.raters import RatersOracle
from nashtune.oracles.rules import RulesOracle
from nashtune.plugins.static import class_info


def test_bradley_terry_is_the_sigmoid_of_the_gap():
    gaps = torch.linspace(-30, 30, 601, dtype=torch.float64)
    p = bradley_terry(gaps, torch.zeros_like(gaps))
    torch.testing.assert_close(p, torch.sigmoid(gaps), rtol=0, atol=4e-16)
    assert torch.equal(p + bradley_terry(torch.zeros_like(gaps), gaps), torch.ones_like(p))


def test_half_plus_and_half_minus_mirror_each_other_bit_for_bit():
    draws = torch.rand(10_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    one, other = around_half(draws), around_half(-draws)
    assert torch.equal(1 - one, other) and torch.equal(1 - other, one)
    torch.testing.assert_close(one, 0.5 + draws, rtol=0, atol=2**-53)


def test_both_orders_are_averaged():
    # Logits A, B of (a, b): 1.3, 0.4; of (b, a): 0.8, 0.5. P(A) is 0.71095 there and 0.57444 here.
    forward, backward = torch.sigmoid(torch.tensor([0.9], dtype=torch.float64)), torch.sigmoid(torch.tensor([0.3]))
    assert both_orders(forward, backward.double()).item() == pytest.approx(0.5682534929, abs=1e-8)
    assert math.isnan(both_orders(forward, torch.tensor([torch.nan])).item())


def test_probabilities_of_a_reward_oracle_are_bradley_terry():
    p = probabilities(RulesOracle(rules=["length"]), ["?", "?"], ["a b c", "a"], ["a", "b"])
    assert p.dtype == torch.float64
    assert p.tolist() == pytest.approx([1 / (1 + math.exp(-2)), 0.5], abs=1e-15)


def test_probabilities_of_a_preference_oracle_are_its_own():
    oracle = RatersOracle(raters=["length"])
    assert probabilities(oracle, ["?"], ["a b c"], ["a"]).tolist() == [1.0]


def test_prompts_may_be_conversations():
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    p = probabilities(RulesOracle(rules=["length"]), [chat, chat], ["a", "a"], ["a", "b c"])
    assert p.tolist() == pytest.approx([0.5, 1 / (1 + math.e)])
    assert text_of(chat) == "system: Be kind.\n\nuser: Hi"
    assert text_of(chat[1:]) == text_of("Hi") == "Hi"


def test_texts_are_filled_in_once():
    values = {"prompt": "{first}", "first": "{second} {x}", "second": "B"}
    assert fill("{prompt}|{first}|{second}|{y}", values) == "{first}|{second} {x}|B|{y}"
    with pytest.raises(InputError, match=r"no \{second\}"):
        check_template("{prompt} {first}", ("prompt", "first", "second"), "oracle.prompt_template")


def test_the_placeholder_asks_for_an_oracle():
    info = class_info("nashtune.oracles.chosen_by_run:ChosenByRun")
    assert info.attributes["chosen_by_run"] is True
    for ask in (ChosenByRun().prepare, lambda: ChosenByRun().compare(["?"], ["a"], ["b"])):
        with pytest.raises(InputError, match=r"which oracle\?.*--spec\.oracle NAME.*raters"):
            ask()

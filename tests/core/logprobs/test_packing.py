"""Batch to flat sequence and back: nothing lost, prefixes once, equal sequences once."""

from __future__ import annotations

import pytest
import torch

from nashtune.logprobs.flex import visible
from nashtune.logprobs.layout import padded_layout
from nashtune.logprobs.packing import LEAST_PREFIX, packed_layout
from packed_batches import batch_of, random_batch

PROMPT = [10, 11, 12, 13, 14]


def test_a_pair_has_its_prompt_once() -> None:
    batch = batch_of([(PROMPT, [20, 21]), (PROMPT, [30, 31, 32])], "pairs")
    layout = packed_layout(batch, share=True)
    assert layout.packed is not None
    assert layout.packed.input_ids.tolist() == [[*PROMPT, 20, 21, 30, 31, 32]]
    assert layout.packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 5, 6, 7]]
    first, second = layout.packed.segments
    assert (first.start, first.length, first.prefix_length) == (0, 7, 0)
    assert (second.start, second.length, second.prefix_start, second.prefix_length) == (7, 3, 0, 5)
    assert layout.before.tolist() == [4, 5, 4, 7, 8]
    assert layout.target.tolist() == [20, 21, 30, 31, 32]
    assert layout.last.tolist() == [6, 9]
    assert (layout.tokens, layout.positions, layout.num_targets) == (15, 10, 5)


def test_equal_first_answer_tokens_are_shared_too() -> None:
    batch = batch_of([(PROMPT, [20, 21, 22]), (PROMPT, [20, 21, 33, 34])], "pairs")
    layout = packed_layout(batch, share=True)
    assert layout.packed is not None
    assert layout.packed.input_ids.tolist() == [[*PROMPT, 20, 21, 22, 33, 34]]
    assert layout.before.tolist() == [4, 5, 6, 4, 5, 6, 8]


def test_a_sequence_that_is_the_prefix_has_no_segment() -> None:
    batch = batch_of([(PROMPT, [20, 21]), (PROMPT, [20])], "pairs")
    layout = packed_layout(batch, share=True)
    assert layout.packed is not None and len(layout.packed.segments) == 1
    assert layout.positions == 7
    assert layout.last.tolist() == [6, 5]
    assert layout.before.tolist() == [4, 5, 4]


def test_equal_sequences_stand_there_once_and_count_twice() -> None:
    batch = batch_of([(PROMPT, [20, 21]), (PROMPT, [20, 21])], "pairs")
    layout = packed_layout(batch, share=True)
    assert layout.positions == 7 and layout.tokens == 14
    assert layout.before.tolist() == [4, 5, 4, 5]
    assert layout.sequence.tolist() == [0, 0, 1, 1]


def test_one_prompt_in_several_rows_stands_there_once() -> None:
    other = [40, 41, 42, 43, 44, 45]
    batch = batch_of([(PROMPT, [1]), (other, [2]), (PROMPT, [3]), (PROMPT, [4]), (other, [5]), (PROMPT, [6])], "pairs")
    assert packed_layout(batch, share=True).positions == 5 + 6 + 6
    assert packed_layout(batch, share=False).positions == 4 * 6 + 2 * 7


def test_partners_with_other_prompts_share_what_they_begin_with() -> None:
    """Texts of a reward model, whose completion is the whole text, and prompts of one row that differ late."""
    batch = batch_of([([], [*PROMPT, 20]), ([], [*PROMPT, 30, 31])], "pairs")
    layout = packed_layout(batch, share=True)
    assert layout.positions == 8 and layout.begins
    ranked = [([], [*PROMPT, i]) for i in range(3)] + [([], [50, 51, 52, 53, 54]), ([], [50, 51, 52, 53, 55])]
    batch = batch_of(ranked, "ranked", rows=2, sizes=torch.tensor([3, 2]))
    assert packed_layout(batch, share=True).positions == 8 + 6


def test_a_prefix_that_is_not_worth_it_is_computed_again() -> None:
    short = PROMPT[: LEAST_PREFIX - 1]
    layout = packed_layout(batch_of([(short, [20]), (short, [30])], "pairs"), share=True)
    assert layout.positions == layout.tokens == 2 * LEAST_PREFIX


def test_a_different_prompt_is_not_joined_by_its_first_tokens() -> None:
    """A chat template begins all prompts alike; a group's prefix stays as long as its prompt."""
    template = list(range(100, 120))
    pairs = [([*template, 1, 2], [5]), ([*template, 3, 4], [6]), ([*template, 1, 2], [7]), ([*template, 3, 4], [8])]
    assert packed_layout(batch_of(pairs, "pairs"), share=True).positions == 2 * (22 + 2)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_every_token_is_where_the_layout_says_and_sees_its_own_sequence_alone(seed: int, share: bool) -> None:
    batch = random_batch(seed)
    padded, layout = padded_layout(batch), packed_layout(batch, share=share)
    packed = layout.packed
    assert packed is not None
    for name in ("sequence", "target", "lengths", "num_sequences", "num_targets", "tokens", "begins"):
        one, other = getattr(padded, name), getattr(layout, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, name
    assert sum(segment.length for segment in packed.segments) == layout.positions == packed.input_ids.shape[1]
    see = visible(packed, None)
    at = torch.arange(layout.positions)
    for flat, place in [*zip(layout.before, padded.before, strict=True), *zip(layout.last, padded.last, strict=True)]:
        n, t = divmod(int(place), batch.input_ids.shape[1])
        seen = at[see(None, None, flat, at)]
        order = packed.position_ids[0, seen].argsort()
        assert packed.input_ids[0, seen[order]].tolist() == batch.input_ids[n, : t + 1].tolist()
        assert int(packed.position_ids[0, flat]) == t

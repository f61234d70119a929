from __future__ import annotations

from dataclasses import replace

import torch

from nashtune.data.collate import CollateExamples, collate_pairs, collate_ranked, completion_batch
from nashtune.data.tokenise import TokenRow


def row(prompt, *completions, **more) -> TokenRow:
    return TokenRow(
        prompt_ids=tuple(prompt), completions=tuple(map(tuple, completions)), where="", prompt_text="", **more
    )


def unpad(batch) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion ids of each sequence, read back through the masks."""
    sequences = []
    for ids, real, scored in zip(batch.input_ids, batch.attention_mask, batch.completion_mask, strict=True):
        assert not (scored & ~real.bool()).any()
        sequences.append((ids[real.bool() & ~scored].tolist(), ids[scored].tolist()))
    return sequences


def test_pairs_are_chosen_then_rejected() -> None:
    batch = collate_pairs([(7, row([1, 2], [3], [4, 5])), (2, row([6], [8, 9, 9], [3]))])
    assert batch.kind == "pairs"
    assert len(batch) == 2
    assert batch.rows.tolist() == [7, 2]
    assert unpad(batch) == [([1, 2], [3]), ([6], [8, 9, 9]), ([1, 2], [4, 5]), ([6], [3])]
    assert batch.input_ids.shape == (4, 4)
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.completion_mask.dtype == torch.bool
    assert batch.p_chosen is None
    assert batch.desirable is None


def test_soft_labels() -> None:
    batch = collate_pairs([(0, row([1], [3], [4], p_chosen=0.25)), (1, row([1], [3], [4], p_chosen=1.0))])
    assert batch.p_chosen is not None
    assert batch.p_chosen.tolist() == [0.25, 1.0]


def test_examples_are_matching_then_mismatched() -> None:
    rows = [row([1], [11], desirable=True), row([2, 2], [12, 12], desirable=False), row([3], [13], desirable=True)]
    batch = CollateExamples(100, None)(list(enumerate(rows)))
    assert batch.kind == "examples"
    assert len(batch) == 3
    assert batch.desirable is not None
    assert batch.desirable.tolist() == [True, False, True]
    own = [([1], [11]), ([2, 2], [12, 12]), ([3], [13])]
    mismatched = [([1], [12, 12]), ([2, 2], [13]), ([3], [11])]
    assert unpad(batch) == own + mismatched


def test_a_mismatched_sequence_keeps_to_the_length_limit() -> None:
    long, short = row([1, 2, 3, 4, 5], [11], desirable=True), row([9], [12, 12, 12, 12], desirable=True)
    batch = CollateExamples(6, None)([(0, long), (1, short)])
    assert unpad(batch)[2] == ([4, 5], [12, 12, 12, 12])
    assert unpad(CollateExamples(6, 1)([(0, long), (1, short)]))[2] == ([1, 5], [12, 12, 12, 12])
    assert unpad(CollateExamples(5, 1)([(0, long), (1, short)]))[2] == ([5], [12, 12, 12, 12])


def test_completions_on_their_own() -> None:
    batch = completion_batch([([1, 2], [3]), ([4], [5, 6])])
    assert unpad(batch) == [([1, 2], [3]), ([4], [5, 6])]
    assert len(batch) == 2


def test_a_batch_moves_to_another_device() -> None:
    batch = collate_pairs([(0, row([1], [3], [4], p_chosen=0.5))]).to("meta")
    assert batch.input_ids.device.type == "meta"
    assert batch.p_chosen is not None
    assert batch.p_chosen.device.type == "meta"


def test_a_prompt_is_not_paired_with_its_own_other_answer() -> None:
    """Chosen and rejected of one prompt stand side by side in preference data: the neighbour would be no mismatch."""
    rows = [row([1], [10], desirable=True), row([1], [11], desirable=False), row([2], [20], desirable=True)]
    sequences = unpad(CollateExamples(16, None)(list(enumerate(rows))))
    assert sequences[3:] == [([1], [20]), ([1], [20]), ([2], [10])]


def test_margins() -> None:
    batch = collate_pairs([(0, row([], [3], [4], margin=0.0)), (1, row([], [5], [6], margin=1.5))])
    assert batch.margin is not None
    assert batch.margin.tolist() == [0.0, 1.5]
    assert collate_pairs([(0, row([1], [3], [4]))]).margin is None
    assert batch.to("meta").margin.device.type == "meta"


def test_whole_conversations_have_no_prompt_of_their_own() -> None:
    batch = collate_pairs([(0, row([], [1, 2, 3], [1, 4]))])
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert torch.equal(batch.completion_mask, batch.attention_mask.bool())


def test_the_completions_of_a_list_stay_together_best_first() -> None:
    batch = collate_ranked([(4, row([], [1, 2], [1, 3, 3], [1, 4])), (9, row([], [5], [6]))])
    assert (batch.kind, len(batch), batch.rows.tolist()) == ("ranked", 2, [4, 9])
    assert batch.sizes is not None
    assert batch.sizes.tolist() == [3, 2]
    assert [ids for _, ids in unpad(batch)] == [[1, 2], [1, 3, 3], [1, 4], [5], [6]]
    assert batch.levels is not None and batch.levels.tolist() == [0, 1, 2, 0, 1]
    tied = collate_ranked([(0, replace(row([], [1], [2], [3]), levels=(0, 1, 1))), (1, row([], [5], [6]))])
    assert tied.levels is not None and tied.levels.tolist() == [0, 1, 1, 0, 1]
    assert batch.to("meta").sizes.device.type == "meta"

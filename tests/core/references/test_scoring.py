"""Sequences in sorted passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nashtune.data.pass_sizes import CPU_TOKENS
from nashtune.interfaces import TokenBatch
from nashtune.logprobs import get_engine
from nashtune.models.policy import HFPolicy
from nashtune.references.scoring import passes, score_new, windows
from nashtune.references.store import Row, no_sums
from nashtune.testing import token_batch

Load = Callable[..., HFPolicy]
CPU = torch.device("cpu")
NAMES = ("input_ids", "attention_mask", "completion_mask")


def row(prompt: int, length: int, scored: int) -> Row:
    """Prompts that begin with different numbers differ."""
    ids = np.full(length, 7)
    ids[0] = prompt
    return ids, np.arange(length) >= length - scored


def many(count: int, seed: int) -> list[TokenBatch]:
    """Batches of two pairs of random lengths."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 60, (count, 4, 2)).tolist()
    return [token_batch([(p, c) for p, c in four], seed=seed + i) for i, four in enumerate(sizes)]


def test_a_pass_holds_sequences_alike_in_length_longest_first() -> None:
    lengths = [9, 3, 30, 8, 9, 3, 4, 10, 31]
    rows = [row(i, length, 1) for i, length in enumerate(lengths)]
    padded = list(passes(rows, 30, pads=True))
    assert sorted(i for picked in padded for i in picked) == list(range(len(rows)))
    assert [[lengths[i] for i in picked] for picked in padded] == [[31], [30], [10, 9, 9], [8], [4], [3, 3]]
    packed = list(passes(rows, 30, pads=False))
    assert [[lengths[i] for i in picked] for picked in packed] == [[31], [30], [10, 9, 9], [8, 4, 3, 3]]


def test_answers_to_one_prompt_stay_together() -> None:
    rows = [row(1, 20, 5), row(2, 19, 4), row(1, 6 + 10, 1), row(3, 18, 3), row(2, 15 + 1, 1)]
    rows[2] = (np.concatenate([rows[0][0][:15], [5]]), np.arange(16) >= 15)  # a short answer to the first one's prompt
    rows[4] = (np.concatenate([rows[1][0][:15], [5]]), np.arange(16) >= 15)
    assert list(passes(rows, 1000, pads=False)) == [[0, 2, 1, 4, 3]]


def test_windows_hold_every_different_sequence_once(tiny: Path, load: Load) -> None:
    batches = many(12, seed=5)
    doubled = [one for batch in batches for one in (batch, batch)]
    found = list(windows(doubled, tokens=500))
    assert len(found) > 3
    assert [list(window) for window in found] == [list(window) for window in windows(doubled, tokens=500)]
    whole = next(windows(batches))
    assert {name for window in found for name in window} == whole.keys() and len(whole) == 48


@pytest.mark.parametrize("name", ["dense", "tiled", "packed", "shared"])
def test_equals_the_engine_on_the_batches_as_they_are(tiny: Path, load: Load, name: str) -> None:
    policy = load(tiny).double()
    policy.eval()
    engine = get_engine(name)  # type: ignore[arg-type]
    batches = many(20, seed=7)
    window = next(windows(batches))
    assert sum(len(ids) for ids, _ in window.values()) > 3 * CPU_TOKENS  # several passes
    sums = score_new(no_sums(), window, policy.model, engine, CPU)
    for batch in batches:
        expected = policy.logprobs(batch, engine)
        there, place = sums.find([n for w in windows([batch]) for n in w])
        assert there.all()
        np.testing.assert_allclose(sums.sums[place], expected.sums.detach().numpy(), rtol=1e-12)
        assert sums.lengths[place].tolist() == expected.lengths.tolist()
    assert len(score_new(sums, window, policy.model, engine, CPU)) == 0


def test_padding_is_small(tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting in a window leaves less than 5% of it; the batches as they come have ten times that."""
    engine = get_engine("tiled")
    ran: list[tuple[int, int]] = []

    def count(self: object, model: object, batch: TokenBatch) -> object:
        assert batch.layout is not None  # counted on the host
        ran.append((batch.input_ids.numel(), int(batch.attention_mask.sum())))
        return forward(self, model, batch)  # type: ignore[arg-type]

    forward = type(engine).forward
    monkeypatch.setattr(type(engine), "forward", count)
    batches = many(200, seed=9)
    score_new(no_sums(), next(windows(batches)), load(tiny).model, engine, CPU)
    computed, real = map(sum, zip(*ran, strict=True))
    assert real / computed > 0.95 and max(positions for positions, _ in ran) <= CPU_TOKENS
    assert sum(int(b.attention_mask.sum()) for b in batches) / sum(b.input_ids.numel() for b in batches) < 0.75


def test_the_order_of_rows_changes_no_number_beyond_rounding(tiny: Path, load: Load) -> None:
    policy, engine = load(tiny).double(), get_engine("tiled")
    batches = many(10, seed=11)
    turned = [replace(b, **{n: getattr(b, n).flip(0) for n in NAMES}) for b in reversed(batches)]
    first, second = (score_new(no_sums(), next(windows(b)), policy.model, engine, CPU) for b in (batches, turned))
    assert np.array_equal(first.names, second.names)
    np.testing.assert_allclose(first.sums, second.sums, rtol=1e-12)

"""Which sequences are scored again, and what counts as a difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nashtune.interfaces import TokenBatch
from nashtune.logprobs import EngineName, get_engine
from nashtune.models.policy import HFPolicy
from nashtune.references.scoring import Window, score_new, windows
from nashtune.references.store import Sums, digest, no_sums, rows_of
from nashtune.references.verification import ALLOWED, SAMPLE, difference, precision, sample
from nashtune.testing import token_batch

Load = Callable[..., HFPolicy]
CPU = torch.device("cpu")
ENGINE = get_engine("tiled")


class Counted:
    """Batches, and which of them were made."""

    def __init__(self, batches: list[TokenBatch]) -> None:
        self.batches = batches
        self.made: list[int] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> TokenBatch:
        self.made.append(index)
        return self.batches[index]

    def __iter__(self) -> Iterator[TokenBatch]:
        return iter(self.batches)


def named(batches: list[TokenBatch]) -> Sums:
    """Sums of all sequences, their values of no account."""
    names = list({digest(row): None for batch in batches for row in rows_of(batch)})
    return Sums.of(names, torch.zeros(len(names)).numpy(), torch.ones(len(names), dtype=torch.int32).numpy())


def pairs(count: int, size: int) -> list[TokenBatch]:
    return [token_batch([(3, 5)] * 2 * size, seed=seed) for seed in range(count)]


@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 100, 1001])
def test_spread_over_batches_and_over_both_answers(count: int, size: int) -> None:
    batches = Counted(pairs(count, size))
    places = {}
    for number, batch in enumerate(batches):
        for i, row in enumerate(rows_of(batch)):
            places[digest(row)] = (number, i >= size)
    found = [places[name] for name in sample(batches, named(batches.batches))]
    assert len(found) == min(SAMPLE, 2 * count * size)
    if len(found) == SAMPLE:
        assert 3 <= sum(rejected for _, rejected in found) <= 5
    assert len(batches.made) <= SAMPLE + count * (count * size < SAMPLE)
    if count >= SAMPLE:
        assert max(batches.made) >= count * 3 // 4


def test_only_what_is_kept_wherever_it_is() -> None:
    """Of a file that is not finished, a part of the sequences is there."""
    batches = Counted(pairs(50, 4))
    kept = named(batches.batches[31:33])
    found = sample(batches, kept)
    assert len(found) == SAMPLE and set(found) <= set(kept)
    assert sample(batches, no_sums()) == {}


def answers(tokens: int) -> Window:
    return next(windows([token_batch([(10, tokens)] * 8, seed=seed) for seed in range(2)], tokens=10**6))


def sharp(policy: HFPolicy) -> nn.Module:
    """The policy's model with logits as large as those of a trained one (standard deviation 3)."""
    model: nn.Module = policy.loaded()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(25)  # type: ignore[operator]
    return model


def test_other_weights_are_refused_on_long_answers(tiny: Path, load: Load) -> None:
    """Noise of a tenth of each weight's size."""
    model, rows = sharp(load(tiny, precision="bf16")), answers(200)
    allowed = ALLOWED[precision(torch.bfloat16, CPU)]
    kept = score_new(no_sums(), rows, model, ENGINE, CPU)
    assert difference(kept, rows, model, ENGINE, CPU, allowed) is None
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=draw) * weight.float().std(correction=0)
            weight.add_((0.1 * noise).to(weight.dtype))
    found = difference(kept, rows, model, ENGINE, CPU, allowed)
    assert found is not None and " of 16 log-probs that were computed again differ" in found


@pytest.mark.parametrize("tokens", [4, 8, 50, 200])
def test_what_is_allowed_grows_like_the_root_of_the_length(tiny: Path, load: Load, tokens: int) -> None:
    model, rows = load(tiny).loaded(), answers(tokens)
    kept = score_new(no_sums(), rows, model, ENGINE, CPU)
    for part, refused in ((0.8, False), (1.2, True)):
        moved = replace(kept, sums=kept.sums + part * 0.1 * max(tokens, 8) ** 0.5)
        assert (difference(moved, rows, model, ENGINE, CPU, 0.1) is not None) == refused


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("name", ["dense", "tiled", "packed", "shared"])
def test_rounding_passes_with_room(tiny: Path, load: Load, dtype: str, name: EngineName) -> None:
    """Other batch-mates and another engine, within a third of what is allowed."""
    model, rows = sharp(load(tiny, precision=dtype)), answers(200)
    allowed = ALLOWED[precision(next(model.parameters()).dtype, CPU)] / 3
    kept = score_new(no_sums(), rows, model, ENGINE, CPU)
    for row in list(rows)[::3]:
        assert difference(kept, {row: rows[row]}, model, get_engine(name), CPU, allowed) is None

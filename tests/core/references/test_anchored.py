"""Log-probs of a game's rows, scored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces import TokenBatch
from nashtune.journal.store import Journal
from nashtune.logprobs import EngineName, get_engine
from nashtune.models.policy import HFPolicy, LoraSettings
from nashtune.references.anchored import AnchoredReference, Sums, from_tensors, mix, score_rows, to_tensors
from nashtune.references.store import no_sums
from nashtune.testing import token_batch

Load = Callable[..., HFPolicy]
ENGINE = get_engine("tiled")
BATCHES = [token_batch([(3, 5), (4, 6)], seed=1), token_batch([(2, 7), (5, 3), (4, 4), (1, 9)], seed=2)]


def shake(policy: HFPolicy, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw))


def anchored(policy: HFPolicy, sums: Sums) -> AnchoredReference:
    reference = AnchoredReference()
    reference.attach(policy)
    reference.set(sums)
    return reference


def sums_of(name: str, value: float) -> Sums:
    return Sums.of([name.encode() * 16], np.array([value]), np.array([2]))


def part(batch: TokenBatch, rows: list[int]) -> TokenBatch:
    """Some sequences of a batch, as rollouts."""
    return replace(
        batch,
        kind="rollouts",
        rows=torch.arange(len(rows)),
        **{name: getattr(batch, name)[rows] for name in ("input_ids", "attention_mask", "completion_mask")},
    )


@pytest.mark.parametrize("name", ["dense", "tiled"])
@pytest.mark.parametrize("lora", [None, LoraSettings(r=2, dropout=0.5)])
def test_equals_the_live_policy_at_the_time_of_scoring(
    tiny: Path, load: Load, name: EngineName, lora: LoraSettings | None
) -> None:
    policy = load(tiny, lora=lora)
    shake(policy)
    engine = get_engine(name)
    reference = anchored(policy, score_rows(policy, BATCHES, engine))
    assert policy.model.training and any(parameter.requires_grad for parameter in policy.parameters())
    policy.eval()
    live = [policy.logprobs(batch, engine) for batch in BATCHES]
    shake(policy, 1)
    for batch, expected in zip(BATCHES, live, strict=True):
        found = reference.logprobs(batch, engine)
        torch.testing.assert_close(found.sums, expected.sums.detach(), rtol=1e-6, atol=1e-5)  # other batch-mates
        assert torch.equal(reference.recall(batch), found.sums) and not found.sums.requires_grad
        assert found.lengths.tolist() == expected.lengths.tolist()
        assert found.sums.dtype == torch.float32 and len(found.token_logp) == 0
    assert not AnchoredReference.gives_logits


def test_float64_stays_float64(tiny: Path, load: Load) -> None:
    policy = load(tiny)
    policy.double()
    reference = anchored(policy, score_rows(policy, BATCHES, ENGINE))
    sums = reference.logprobs(BATCHES[0], ENGINE).sums
    expected = policy.logprobs(BATCHES[0], ENGINE).sums.detach()
    torch.testing.assert_close(sums, expected, rtol=1e-13, atol=0.0)
    assert sums.dtype == torch.float64


def test_a_sequence_that_comes_again_is_scored_once(tiny: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """One completion stands in several pairs of its prompt."""
    policy = load(tiny)
    scored: list[int] = []
    forward = type(ENGINE).forward

    def count(self: object, model: object, batch: TokenBatch) -> object:
        scored.append(len(batch.input_ids))
        return forward(self, model, batch)  # type: ignore[arg-type]

    whole = score_rows(policy, [BATCHES[1]], ENGINE)
    monkeypatch.setattr(type(ENGINE), "forward", count)
    again = score_rows(policy, [part(BATCHES[1], rows) for rows in ([0, 1], [1, 0], [0, 2, 2], [3])], ENGINE)
    assert scored == [4]
    assert again.keys() == whole.keys() and len(whole) == 4
    for name, (value, length) in again.items():
        assert value == pytest.approx(whole[name][0], rel=1e-6) and length == whole[name][1]


def test_a_row_that_was_not_scored_is_named(tiny: Path, load: Load) -> None:
    policy = load(tiny)
    reference = anchored(policy, score_rows(policy, BATCHES[:1], ENGINE))
    with pytest.raises(InputError, match=r"anchors: no log-prob for row 0: .*start a new run"):
        reference.logprobs(BATCHES[1], ENGINE)
    border = BATCHES[0].completion_mask.clone()
    border[1, 4] = False  # one more token belongs to the prompt
    with pytest.raises(InputError, match="no log-prob for row 0"):
        reference.logprobs(replace(BATCHES[0], completion_mask=border), ENGINE)
    reference.set(score_rows(policy, BATCHES[1:], ENGINE))
    reference.logprobs(BATCHES[1], ENGINE)
    with pytest.raises(InputError, match="no log-prob"):
        reference.logprobs(BATCHES[0], ENGINE)  # the phase before is forgotten


def test_a_mixture_is_the_weighted_sum_of_log_probs(tiny: Path, load: Load) -> None:
    """The anchor of virtual optimistic play after three rounds: 1/4, 1/4, 1/2."""
    policy = load(tiny)
    parts, live = [], []
    for weight in (0.25, 0.25, 0.5):
        shake(policy, len(parts))
        parts.append((weight, score_rows(policy, BATCHES, ENGINE)))
        live.append(weight * policy.logprobs(BATCHES[1], ENGINE).sums.detach().double())
    mixed = anchored(policy, mix(parts)).logprobs(BATCHES[1], ENGINE).sums
    torch.testing.assert_close(mixed.double(), torch.stack(live).sum(0), rtol=1e-7, atol=0.0)
    assert mix([(1.0, parts[0][1])]) == parts[0][1]
    assert mix([(0.75, sums_of("x", -3.0)), (0.25, sums_of("x", -5.0))]) == {b"x" * 16: (-3.5, 2)}


def test_a_mixture_of_different_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="different sequences"):
        mix([(0.5, sums_of("x", -3.0)), (0.5, sums_of("y", -3.0))])


def test_entries_go_through_the_journal_unchanged(tiny: Path, tmp_path: Path, load: Load) -> None:
    policy = load(tiny)
    entries = score_rows(policy, BATCHES, ENGINE)
    mixed = mix([(1 / 3, entries), (2 / 3, entries)])
    journal = Journal(tmp_path)
    for number, kept in enumerate((entries, mixed, no_sums()), start=1):
        journal.write_tensors(number, "anchors", to_tensors(kept))
        assert from_tensors(journal.read_tensors(number, "anchors")) == kept

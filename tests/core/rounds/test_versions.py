"""What a game writes down is what its snapshots say: log-probs of completions, and of anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab import Lab
from nashtune.data.collate import completion_batch
from nashtune.interfaces import Completion
from nashtune.journal.records import read_completions, read_pairs
from nashtune.journal.store import Journal
from nashtune.logprobs import get_engine
from nashtune.models.mode import frozen_mode
from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig
from nashtune.models.snapshots import SnapshotBank
from nashtune.references.anchored import from_tensors
from nashtune.references.store import digests
from nashtune.samplers.recorded_journal import PROMPTS

ROUNDS = ("--spec.schedule.rounds", "2", "--spec.optimizer.lr", "0.05")  # steps that tell one snapshot from another
KINDS = {"full weights": (), "lora": ("--policy.lora.r", "2")}
FLOAT32 = 1e-4  # nats

Sequences = list[tuple[Sequence[int], Sequence[int]]]


@dataclass(frozen=True)
class Run:
    """A finished game, read with its own eyes.

    Args:
        journal: What it wrote down.
        bank: Its snapshots.
        policy: Holds any snapshot.
    """

    journal: Journal
    bank: SnapshotBank
    policy: HFPolicy

    def drawn(self, round: int) -> list[Completion]:
        return read_completions(self.journal, round, "policy", 0)[0]

    def prompts(self, round: int) -> dict[int, list[int]]:
        table = self.journal.read_table(round, PROMPTS)
        return dict(zip(table["prompt"], table["token_ids"], strict=True))

    def sequences(self, round: int) -> Sequences:
        """Prompt and completion, token ids, of all that was drawn."""
        prompts = self.prompts(round)
        return [(prompts[one.prompt], one.token_ids) for one in self.drawn(round)]

    def paired(self, round: int) -> Sequences:
        """Of all that is in a pair."""
        held = {(prompt, k) for prompt, one in read_pairs(self.journal, round)[0] for k in (one.chosen, one.rejected)}
        both = zip(self.drawn(round), self.sequences(round), strict=True)
        return [sequence for one, sequence in both if (one.prompt, one.k) in held]

    def anchor(self, round: int, name: str, sequences: Sequences) -> Tensor:
        """Sums of log-probs in the journal (N,)."""
        entries = from_tensors(self.journal.read_tensors(round, f"anchor-{name}-000000"))
        found = [entries[digest] for digest in digests(completion_batch(sequences))]
        assert [length for _, length in found] == [len(completion) for _, completion in sequences]
        assert len(entries) == len(set(digests(completion_batch(sequences))))  # and no others
        return torch.tensor([value for value, _ in found], dtype=torch.float64)

    def tokens(self, snapshot: str, sequences: Sequences) -> list[Tensor]:
        """Log-prob of every token under a snapshot, by the trainer's engine; padded batches."""
        self.bank.load(snapshot, self.policy)
        batch, engine = completion_batch(sequences), get_engine("dense")
        with frozen_mode(self.policy.loaded()):
            logp = self.policy.logprobs(batch, engine).token_logp
        return list(torch.split(logp.double(), [len(completion) for _, completion in sequences]))

    def sums(self, snapshot: str, sequences: Sequences) -> Tensor:
        """Their sums (N,)."""
        return torch.stack([logp.sum() for logp in self.tokens(snapshot, sequences)])

    def logits(self, snapshot: str, sequence: tuple[Sequence[int], Sequence[int]]) -> Tensor:
        """All logits that predict a completion (T, V), from a forward pass without padding or cache."""
        self.bank.load(snapshot, self.policy)
        prompt, completion = sequence
        model = self.policy.loaded()
        with frozen_mode(model):
            logits: Tensor = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        return logits.double()


@pytest.fixture
def play(game: Lab, tiny: Path) -> Callable[..., Run]:
    def run(spec: str, kind: str, *options: str) -> Run:
        folder = game.fit(*ROUNDS, *KINDS[kind], *options, spec=spec)
        policy = HFPolicy(PolicyConfig(path=str(tiny), lora=LoraSettings(r=2) if kind == "lora" else None))
        policy.load()
        return Run(Journal(folder / "journal"), SnapshotBank(folder / "snapshots"), policy)

    return run


def off(one: Sequence[float] | Tensor, other: Tensor) -> float:
    return float((torch.as_tensor(one, dtype=torch.float64) - other).abs().max())


def by_token(run: Run, round: int, snapshot: str) -> Iterator[float]:
    """How far the journalled log-probs of each completion are from those of a snapshot."""
    for one, logp in zip(run.drawn(round), run.tokens(snapshot, run.sequences(round)), strict=True):
        yield off(one.token_logp, logp)


@pytest.mark.parametrize("kind", KINDS)
def test_completions_have_the_log_probs_of_the_snapshot_that_they_name(play: Callable[..., Run], kind: str) -> None:
    run = play("onpo", kind)
    for round, version, others in [(1, "start", ["main@1"]), (2, "main@1", ["start", "aux@1", "aux@2", "main@2"])]:
        assert {one.version for one in run.drawn(round)} == {version}
        assert {one.finish for one in run.drawn(round)} <= {"stop", "length"} and len(run.drawn(round)) == 16
        assert max(by_token(run, round, version)) < FLOAT32
        for other in others:
            assert max(by_token(run, round, other)) > 100 * FLOAT32, other


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spec", "anchors"),
    [
        (
            "onpo",  # two updates a round, each against the auxiliary policy before it
            {
                (1, "aux-0000"): {"start": 1.0},
                (1, "aux-0001"): {"aux@1": 1.0},
                (2, "aux-0002"): {"aux@1": 1.0},
                (2, "aux-0003"): {"aux@2": 1.0},
            },
        ),
        (
            "onpo_virtual",  # log pi'_2 = (log pi_1 + log pi_2) / 2
            {(1, "aux-0000"): {"start": 1.0}, (2, "aux-0001"): {"start": 0.5, "main@1": 0.5}},
        ),
        (
            "inpo",
            {
                (1, "ref-0000"): {"start": 1.0},
                (1, "previous-0000"): {"start": 1.0},
                (2, "ref-0001"): {"start": 1.0},
                (2, "previous-0001"): {"main@1": 1.0},
            },
        ),
    ],
)
def test_anchors_have_the_log_probs_of_the_snapshots_that_the_method_names(
    play: Callable[..., Run], spec: str, anchors: dict[tuple[int, str], dict[str, float]], kind: str
) -> None:
    run = play(spec, kind)
    written = {
        (t, name.removeprefix("anchor-").removesuffix("-000000"))
        for t in (1, 2)
        for name in run.journal.names(t)
        if "anchor" in name
    }
    assert written == anchors.keys()
    for (round, name), snapshots in anchors.items():
        sequences = run.paired(round)
        found = run.anchor(round, name, sequences)
        expected = torch.stack([weight * run.sums(one, sequences) for one, weight in snapshots.items()]).sum(0)
        assert off(found, expected) < FLOAT32, name
        for other in set(run.bank.names()) - snapshots.keys():
            assert off(found, run.sums(other, sequences)) > 100 * FLOAT32, (name, other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mixture_draws_from_last_rounds_policy_and_the_start_token_by_token(
    play: Callable[..., Run], kind: str
) -> None:
    """softmax((1 - w) logits of main@{t-1} + w logits of start), w = eta tau, at every token."""
    weight = 0.3
    run = play("nash_md", kind, "--spec.loss.eta", "3", "--spec.loss.tau", str(weight / 3))
    for round, last in [(1, "start"), (2, "main@1")]:
        assert {one.version for one in run.drawn(round)} == {last}
        sequences, worst = run.sequences(round), 0.0
        for one, sequence in zip(run.drawn(round), sequences, strict=True):
            mixed = (1 - weight) * run.logits(last, sequence) + weight * run.logits("start", sequence)
            at = torch.log_softmax(mixed, -1)[torch.arange(len(one.token_ids)), list(one.token_ids)]
            worst = max(worst, off(one.token_logp, at))
        assert worst < FLOAT32
    # the mixture is neither of its parts
    assert min(max(by_token(run, 2, snapshot)) for snapshot in ("start", "main@1")) > 100 * FLOAT32
    for name, snapshot in {"ref-0001": "start", "previous-0001": "main@1"}.items():
        assert off(run.anchor(2, name, run.paired(2)), run.sums(snapshot, run.paired(2))) < FLOAT32, name

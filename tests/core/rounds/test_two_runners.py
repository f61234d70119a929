"""The runner of language models and the tabular one are the same algorithm.

A language model whose vocabulary is a game's five actions, EOS among them, answers one prompt with one token: its
policy is a softmax over the actions, as the tabular runner's is. Legend: n = actions, B = pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lab import Lab, write_rows
from nashtune.games.matrices import Game, from_upper, make_game
from nashtune.games.population import Rows
from nashtune.games.runner import TabularRunner
from nashtune.games.sampled import SampledPairs
from nashtune.journal.records import read_completions, read_pairs
from nashtune.journal.store import Journal
from nashtune.models.policy import HFPolicy
from nashtune.models.snapshots import SnapshotBank
from nashtune.pairing.iid import IID
from nashtune.spec.model import Spec
from nashtune.spec.resolve import resolve
from tabular import normalised

Array = NDArray[np.float64]
Pairs = NDArray[np.int64]

VOCABULARY = ["a", "b", "c", "d", "</s>"]
ANSWERS = ["a", "b", "c", "d", ""]  # what they decode to
MATRIX = from_upper(np.where(np.random.default_rng(3).random((5, 5)) < 0.5, 0.1, 0.9))
COMPLETIONS = 1920  # of the one prompt, in a round: 960 pairs before those of equal answers are dropped
SEEDS = 100  # sampled tabular runs
CONVERGED = 5e-4  # nats: how far AdamW's last step may be from the minimiser


@pytest.fixture(scope="module")
def five_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of five tokens that prefers some: its rarest answer to "a" has probability 0.09."""
    folder = tmp_path_factory.mktemp("models") / "five"
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="a"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        bos_token_id=None,
        eos_token_id=4,
        pad_token_id=4,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(7.0)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="</s>").save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Played:
    """A run of two rounds on the language model.

    Args:
        spec: As the run kept it.
        policies: Log-probs (n,) of every snapshot, from its weights, in float64.
        pairs: (chosen, rejected) (B, 2) of each round, from the journal.
    """

    spec: Spec
    policies: dict[str, Array]
    pairs: list[Pairs]

    @property
    def game(self) -> Game:
        """The game as it begins for the language model."""
        return make_game("five", MATRIX, np.exp(self.policies["start"]))


@pytest.fixture
def play(
    lightning_log: None,
    tmp_path: Path,
    five_words: Path,
    load: Callable[..., HFPolicy],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Played]:
    """Plays a spec for two rounds; every update takes full-batch steps until it stands at its minimiser."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.jsonl", [{"prompt": "a"}])
    np.savetxt(tmp_path / "game.csv", MATRIX, delimiter=",", fmt="%.17g")

    def run(spec: str, *options: str) -> Played:
        settings = {
            "policy": {"path": str(five_words)},
            "data": {
                "train": "train.jsonl",
                "template": "plain",
                "max_length": 8,
                "prompts_per_round": 1,
                "batch_size": COMPLETIONS // 2,  # all pairs
            },
            "trainer": {"accelerator": "cpu", "max_epochs": 160, "enable_progress_bar": False, "log_every_n_steps": 50},
            "spec": {
                "schedule": {"rounds": 2},
                "oracle": {"name": "matrix", "game": "game.csv", "answers": ANSWERS},
                "sampler": {"completions": COMPLETIONS, "max_new_tokens": 1},
                "pairing": {"name": "iid", "label": "sampled"},
                "optimizer": {"lr": 0.015, "betas": [0.9, 0.95], "weight_decay": 0.0, "decay": "cosine"},
            },
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
        folder = Lab(tmp_path, tmp_path / "run.yaml").fit(*options, spec=spec)
        kept = yaml.safe_load((folder / "config.yaml").read_text())["spec"]
        journal = Journal(folder / "journal")
        return Played(resolve(kept), snapshots(folder, load(five_words)), [pairs_of(journal, t) for t in (1, 2)])

    return run


def snapshots(run: Path, policy: HFPolicy) -> dict[str, Array]:
    bank = SnapshotBank(run / "snapshots")
    found = {}
    for name in bank.names():
        bank.load(name, policy)
        with torch.no_grad():
            logits = policy.loaded()(torch.tensor([[VOCABULARY.index("a")]])).logits[0, -1]
        found[name] = torch.log_softmax(logits.double(), -1).numpy()
    return found


def pairs_of(journal: Journal, round: int) -> Pairs:
    token = {}
    for one in read_completions(journal, round, "policy", part=0)[0]:
        (token[one.prompt, one.k],) = one.token_ids
    rows, _ = read_pairs(journal, round)
    return np.array([(token[prompt, pair.chosen], token[prompt, pair.rejected]) for prompt, pair in rows])


def regression(pairs: Pairs, centre: Array, target: float) -> Array:
    """The policy whose log-ratio to `centre` is nearest to the target on all pairs: least squares, in closed form."""
    difference = np.eye(len(VOCABULARY))[pairs[:, 0]] - np.eye(len(VOCABULARY))[pairs[:, 1]]
    step = np.linalg.lstsq(difference, np.full(len(pairs), target), rcond=None)[0]
    return normalised(centre + step)


def onpo(start: Array, pairs: list[Pairs]) -> dict[str, Array]:
    aux, found = start, {}
    for t, of_round in enumerate(pairs, start=1):
        found[f"aux@{t}"] = aux = regression(of_round, aux, ETA / 2)
        found[f"main@{t}"] = regression(of_round, aux, ETA / 2)
    return found


def onpo_virtual(start: Array, pairs: list[Pairs]) -> dict[str, Array]:
    first = regression(pairs[0], start, ETA)
    return {"main@1": first, "main@2": regression(pairs[1], (start + first) / 2, ETA)}


def inpo(start: Array, pairs: list[Pairs]) -> dict[str, Array]:
    last, found = start, {}
    for t, of_round in enumerate(pairs, start=1):
        centre = TAU / INVERSE_STEP * start + (1 - TAU / INVERSE_STEP) * last
        found[f"main@{t}"] = last = regression(of_round, centre, 1 / (2 * INVERSE_STEP))
    return found


ETA, INVERSE_STEP, TAU = 1.0, 1.25, 0.4
METHODS: dict[str, tuple[tuple[str, ...], Callable[[Array, list[Pairs]], dict[str, Array]]]] = {
    "onpo": (("--spec.loss.eta", str(ETA)), onpo),
    "onpo_virtual": (("--spec.loss.eta", str(ETA)), onpo_virtual),
    "inpo": (("--spec.loss.eta", str(INVERSE_STEP), "--spec.loss.tau", str(TAU)), inpo),
}


class Recorded:
    """The run's own pairs, for the tabular runner."""

    def __init__(self, pairs: list[Pairs]) -> None:
        self.pairs = pairs

    def __call__(self, mu_A: Array, round: int) -> Rows:
        chosen_B, rejected_B = torch.from_numpy(self.pairs[round - 1].T.copy())
        return Rows(
            chosen_B=chosen_B,
            rejected_B=rejected_B,
            weight_B=torch.full(chosen_B.shape, 1 / len(chosen_B), dtype=torch.float64),
            p_chosen_B=torch.from_numpy(MATRIX)[chosen_B, rejected_B],
        )


def distance(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max())


@pytest.mark.parametrize("method", METHODS)
def test_both_runners_come_to_the_same_policies(play: Callable[..., Played], method: str) -> None:
    options, minimisers = METHODS[method]
    played = play(method, *options)
    start = played.policies["start"]
    assert all(len(pairs) > 500 for pairs in played.pairs)

    # On the same pairs: each update ends at the minimiser of its loss on them, computed here in closed form from the
    # start policy on, so that also what one update hands to the next is the same.
    expected = minimisers(start, played.pairs)
    assert expected.keys() == played.policies.keys() - {"start"}
    for name, policy in expected.items():
        assert distance(played.policies[name], policy) < CONVERGED, name

    # The tabular runner fits exactly these: its loss and schedule objects on the run's pairs give the same numbers.
    replayed = TabularRunner(played.spec, [played.game], Recorded(played.pairs)).run().policies
    for t in (1, 2):
        assert distance(replayed[t], expected[f"main@{t}"]) < 1e-10

    # Against exact expectations there is sampling error. Its size is the spread of the tabular runner over sampled runs
    # of the same design: so many groups of so many completions, paired and labelled alike, in two rounds. The language
    # model is one more draw of it, so that each of its 10 log-probs lies within 4 standard deviations (by chance not:
    # once in 1,600 seeds; the seed is fixed).
    exact = TabularRunner(played.spec, [played.game]).run().policies
    sampled = [
        TabularRunner(played.spec, [played.game], sampled_pairs(played.game, seed)).run().policies
        for seed in range(SEEDS)
    ]
    for t in (1, 2):
        found, error = played.policies[f"main@{t}"], np.std([policies[t] for policies in sampled], axis=0, ddof=1)
        assert (np.abs(found - exact[t]) < 4 * error).all()
        assert distance(exact[t], start) > 8 * error.max()  # what was learned is many times that error


def sampled_pairs(game: Game, seed: int) -> SampledPairs:
    return SampledPairs([game], IID(), pairs=COMPLETIONS // 2, completions=COMPLETIONS, seed=seed)

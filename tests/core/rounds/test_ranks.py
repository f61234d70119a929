"""Games and reinforcement learning on several ranks come to what one rank comes to, also when a rank dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from killing import killed_run
from lab import Lab
from nashtune.errors import InputError
from nashtune.journal.records import read_completions, read_judgements, read_pairs, read_scores
from nashtune.journal.store import Journal
from nashtune.models.policy import HFPolicy, PolicyConfig
from nashtune.models.snapshots import SnapshotBank
from ranks import DDP, FSDP2, Moment, call_on_ranks, fit_on_ranks, run_on_ranks

STEPS = ("--spec.schedule.steps", "2", "--data.prompts_per_round", "4")
METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # what both runs are given, one rank alone, each of two ranks
    "onpo": (
        ("--spec", "onpo", "--spec.schedule.rounds", "2"),
        ("--data.batch_size", "4"),
        ("--data.batch_size", "2"),
    ),
    "nash_ema_pg": (
        ("--spec", "nash_ema_pg", *STEPS),
        ("--data.batch_size", "16"),
        ("--data.batch_size", "4", "--trainer.accumulate_grad_batches", "2"),
    ),
    "nash_md_pg": (
        ("--spec", "nash_md_pg", *STEPS),
        ("--data.batch_size", "16"),
        ("--data.batch_size", "4", "--trainer.accumulate_grad_batches", "2"),
    ),
    "ppo": (
        ("--spec", "ppo", *STEPS, "--trainer.max_epochs", "2"),
        ("--data.batch_size", "3", "--trainer.accumulate_grad_batches", "4"),
        ("--data.batch_size", "3", "--trainer.accumulate_grad_batches", "2"),
    ),
}
KEPT: dict[str, Path] = {}
"""Undisturbed runs by method: nothing of a run depends on its folder, so one serves all tests."""


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What the newest checkpoint holds."""
    newest = max((run / "checkpoints").glob("step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
    state: dict[str, torch.Tensor] = torch.load(newest, weights_only=True)["state_dict"]
    return state


def drawn(run: Path) -> dict[str, list[Any]]:
    """Completions, verdicts and pairs of every round, in an order that says nothing of parts and ranks."""
    journal = Journal(run / "journal")
    found: dict[str, list[Any]] = {"completions": [], "judgements": [], "scores": [], "pairs": []}
    for t in journal.rounds():
        for name in journal.names(t):
            kind, _, part = name.rpartition("-")
            if kind.startswith("completions"):
                role: Any = kind.partition("-")[2]
                made, texts = read_completions(journal, t, role, int(part))
                each = zip(made, texts, strict=True)
                found["completions"] += [(t, role, c.prompt, c.k, c.token_ids, c.version, text) for c, text in each]
            elif kind == "judgements":
                found[kind] += [(t, c.prompt, c.first, c.second, c.p) for c in read_judgements(journal, t, int(part))]
            elif kind == "scores":
                found[kind] += [(t, c.prompt, c.role, c.k, c.mean) for c in read_scores(journal, t, int(part))]
            elif name == "pairs":
                found[name] += [(t, prompt, c.chosen, c.rejected) for prompt, c in read_pairs(journal, t)[0]]
    return {name: sorted(rows) for name, rows in found.items()}


def logged(game: Lab, run: Path) -> dict[tuple[str, int], float]:
    """Value of each metric at each step, but for speed."""
    series = game.metrics(run).series
    kept = [name for name in series if name.startswith(("train/", "rollout/"))]
    return {(name, step): value for name in kept for step, value in series[name]}


def assert_same(one: Path, other: Path) -> None:
    first, second = drawn(one), drawn(other)
    assert first["completions"], "nothing was drawn"
    for name in first:
        assert first[name] == second[name], name
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5)


def command(game: Lab, run: str, *options: str) -> list[str]:
    return ["fit", "--config", str(game.run_file), *options, "--run_dir", str(game.folder / run)]


def on_two(game: Lab, run: str, *options: str, ranks: int = 2, strategy: tuple[str, ...] = DDP) -> Path:
    fit_on_ranks(command(game, run, *options), game.folder, ranks=ranks, strategy=strategy)
    return game.folder / run


@pytest.fixture
def alone(game: Lab, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The run of a test's method on one rank."""
    method = request.node.callspec.params.get("method", "onpo") if hasattr(request.node, "callspec") else "onpo"
    if method not in KEPT:
        options, alone, _ = METHODS[method]
        KEPT[method] = game.fit(*options, *alone, spec=None, run="alone").rename(
            tmp_path_factory.mktemp("kept") / "run"
        )
    return KEPT[method]


@pytest.mark.parametrize("method", ["onpo", "nash_ema_pg", "ppo"])
def test_two_ranks_play_as_one(game: Lab, alone: Path, method: str) -> None:
    options, _, each = METHODS[method]
    two = on_two(game, "two", *options, *each)
    assert_same(alone, two)
    assert (two / "journal" / "round-001" / "manifest-0001.json").exists(), "rank 1 had nothing to do"
    assert logged(game, alone) == pytest.approx(logged(game, two), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("method", ["onpo", "nash_md_pg", "ppo"])
def test_a_policy_that_is_cut_up_plays_as_one(game: Lab, alone: Path, method: str) -> None:
    options, _, each = METHODS[method]
    assert_same(alone, on_two(game, "two", *options, *each, strategy=FSDP2))


def test_a_rank_without_a_prompt_or_a_row_waits_for_the_others(game: Lab) -> None:
    """Two prompts a round for three ranks, of which the update has two pairs."""
    options = (
        *("--spec", "inpo", "--spec.schedule.rounds", "2", "--data.prompts_per_round", "2"),
        *("--spec.sampler.completions", "2"),
    )
    one = game.fit(*options, "--data.batch_size", "3", spec=None, run="one")
    assert_same(one, on_two(game, "three", *options, "--data.batch_size", "1", ranks=3))


DEATHS: dict[str, tuple[int, Moment, int]] = {
    # which rank of two dies, when, and how many go on
    "while sampling": (1, ("nashtune.rounds.collect:write_completions", 2, False), 2),
    "while pairing": (0, ("nashtune.rounds.pair:write_pairs", 2, False), 2),
    "while anchoring": (1, ("nashtune.journal.store:Journal.write_tensors", 1, False), 1),
    "in an update": (1, ("nashtune.training.module:AlignmentModule.training_step", 3, False), 1),
    "before a snapshot is named": (0, ("nashtune.models.snapshots:SnapshotBank._write_index", 3, False), 2),
}
ALONE = ("--trainer.devices", "1", "--trainer.strategy", "auto")


@pytest.mark.parametrize("death", DEATHS)
def test_a_rank_dies_and_the_run_goes_on(game: Lab, alone: Path, death: str) -> None:
    options, by_one, by_each = METHODS["onpo"]
    rank, moment, ranks = DEATHS[death]
    codes = run_on_ranks(command(game, "run", *options, *by_each), game.folder, deaths={rank: moment})
    assert codes[rank] == -9 and codes[1 - rank] not in (0, None), f"{codes}: the other rank must stop too"
    if ranks == 1:
        run = game.fit("--ckpt_path", "last", *ALONE, *by_one, spec=None)
    else:
        run = on_two(game, "run", "--ckpt_path", "last", *by_each)
    assert_same(alone, run)


def test_a_run_of_one_rank_goes_on_with_two(game: Lab, alone: Path) -> None:
    options, by_one, by_each = METHODS["onpo"]
    target = "nashtune.training.module:AlignmentModule.training_step"
    assert killed_run(command(game, "run", *options, *by_one), str(game.folder), target, 3, after=False) == -9
    assert_same(alone, on_two(game, "run", "--ckpt_path", "last", *by_each))


@pytest.mark.parametrize("method", ["ppo"])
def test_a_rank_dies_while_measuring_and_one_goes_on(game: Lab, alone: Path, method: str) -> None:
    """Rank 0 has written its share. The checkpoint was made with two micro-batches a step, and there are four now."""
    options, by_one, by_each = METHODS[method]
    moment: Moment = ("nashtune.journal.store:Journal.write_tensors", 2, False)
    every = ("--save_every", "1")
    codes = run_on_ranks(command(game, "run", *options, *by_each, *every), game.folder, deaths={1: moment})
    assert codes[1] == -9 and codes[0] not in (0, None)
    assert_same(alone, game.fit("--ckpt_path", "last", *options, *ALONE, *by_one, spec=None))


def save_where_something_lies(rank: int, model: str, folder: str) -> None:
    policy = HFPolicy(PolicyConfig(path=model))
    policy.load()
    expected = r"main@1\.safetensors cannot be written"
    with pytest.raises(InputError, match=expected if rank == 0 else f"rank 0 of 2 failed: .*{expected}"):
        SnapshotBank(Path(folder)).save("main@1", policy)


def test_what_fails_on_one_rank_stops_all_with_its_message(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "main@1.safetensors").mkdir()
    call_on_ranks(save_where_something_lies, tmp_path, str(tiny), str(tmp_path))

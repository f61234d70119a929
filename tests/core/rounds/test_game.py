"""Games on a tiny model: what a run leaves, how it is replayed, and what must not change its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.cli.main import main
from nashtune.journal.records import read_completions, read_pairs
from nashtune.journal.store import Journal

TWO = ("--spec.schedule.rounds", "2")


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What the newest checkpoint holds."""
    newest = max((run / "checkpoints").glob("step=*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
    state: dict[str, torch.Tensor] = torch.load(newest, weights_only=True)["state_dict"]
    return state


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_onpo_trains_two_policies_a_round_and_keeps_them(game: Lab) -> None:
    run = game.fit(*TWO, spec="onpo")
    assert {path.stem for path in (run / "snapshots").glob("*.safetensors")} == {
        *("start", "aux@1", "main@1", "aux@2", "main@2")
    }
    report = json.loads((run / "report.json").read_text())
    assert [one["round"] for one in report["rounds"]] == [1, 2]
    assert report["win_rates"]["policies"] == ["start", "main@1", "main@2"]
    assert set(report["win_rates"]["kl_from_start"]) == {"main@1", "main@2"}
    assert (run / "win_rates.png").read_bytes()[:4] == b"\x89PNG"
    rounds = [value for _, value in game.metrics(run).series["train/round"]]
    assert rounds == sorted(rounds) and set(rounds) == {1.0, 2.0}


def test_each_round_draws_from_the_policy_of_the_round_before(game: Lab) -> None:
    journal = Journal(game.fit(*TWO, spec="onpo") / "journal")
    versions = [{one.version for one in read_completions(journal, t, "policy", 0)[0]} for t in (1, 2)]
    assert versions == [{"start"}, {"main@1"}]


def test_two_equal_runs_are_equal_to_the_last_bit(game: Lab) -> None:
    one, other = game.fit(*TWO, spec="onpo", run="one"), game.fit(*TWO, spec="onpo", run="other")
    assert same(one, other)
    files = [sorted(run.glob("journal/*/*")) for run in (one, other)]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


@pytest.mark.parametrize("spec", ["onpo", "sppo"])
def test_replaying_a_journal_gives_the_same_weights_without_sampler_and_oracle(game: Lab, spec: str) -> None:
    first = game.fit(*TWO, spec=spec, run="first")
    again = game.fit(
        *(*TWO, "--spec.sampler", "recorded", "--spec.sampler.path", str(first), "--spec.sampler.completions", "4"),
        *("--spec.sampler.max_new_tokens", "6", "--spec.oracle", "none"),
        spec=spec,
        run="again",
    )
    assert same(first, again)
    assert "policies" not in json.loads((again / "report.json").read_text())["win_rates"]


def test_micro_batches_change_nothing_but_speed(game: Lab) -> None:
    small = game.fit(*TWO, "--data.batch_size", "1", "--trainer.accumulate_grad_batches", "3", spec="inpo", run="small")
    large = game.fit(*TWO, "--data.batch_size", "3", spec="inpo", run="large")
    for name, weight in weights(large).items():
        torch.testing.assert_close(weights(small)[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spec", ["nash_md_pg", "nash_ema_pg"])
def test_policy_gradient_goes_on_from_the_middle(game: Lab, spec: str) -> None:
    """Live weights, optimiser and the moving average all survive; two micro-batches make each optimiser step."""
    options = (
        *("--spec.schedule.steps", "4", "--data.prompts_per_round", "2", "--spec.sampler.completions", "2"),
        *("--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2"),
    )
    whole = game.fit(*options, spec=spec, run="whole")
    part = game.fit(*options, "--trainer.max_steps", "2", spec=spec, run="part")
    assert part == game.folder / "part"
    resumed = game.fit("--ckpt_path", "last", *options, "--trainer.max_steps", "-1", spec=None, run="part")
    assert json.loads((resumed / "report.json").read_text())["steps"] == 4
    assert same(whole, resumed)


def test_with_lora_snapshots_are_adapters_and_one_model_is_in_memory(game: Lab) -> None:
    run = game.fit(*TWO, "--policy.lora.r", "2", spec="inpo")
    sizes = {path.stem: path.stat().st_size for path in (run / "snapshots").glob("*.safetensors")}
    model = sum(path.stat().st_size for path in (run / "export").glob("*.safetensors"))
    assert sizes.keys() == {"start", "main@1", "main@2"}
    assert max(sizes.values()) < 40_000 and model < 40_000


@pytest.mark.parametrize("pairing", ["best_worst", "tournament"])
def test_a_game_without_any_pair_goes_through_and_is_no_result(
    game: Lab, pairing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An oracle that never sees a difference: every comparison is a tie."""
    run, silent = game.folder / "run", ("--spec.oracle.rules", "[regex:never]", "--spec.pairing", pairing)
    assert main(["fit", "--spec", "inpo", "--config", str(game.run_file), "--run_dir", str(run), *TWO, *silent]) == 1
    why = "no round gave anything to train on (dropped: 8 tie)"
    assert f"failed: nothing was trained: {why}. The weights are the start model's, so no" in capsys.readouterr().err
    report = json.loads((run / "report.json").read_text())
    assert [one["pairs"] for one in report["rounds"]] == [0, 0]
    assert [one["dropped"] for one in report["rounds"]] == [{"tie": 4}, {"tie": 4}]
    assert (report["steps"], report["untrained"]) == (0, why)
    assert not (run / "export").exists()
    assert not (run / "checkpoints").exists()


def test_an_altered_journal_is_named(game: Lab, refused: Callable[..., str]) -> None:
    run = game.fit(*TWO, "--trainer.max_steps", "1", spec="inpo")
    file = run / "journal" / "round-001" / "completions-policy-0000.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "-1")
    assert "completions-policy-0000.parquet" in message


def test_learning_rate_and_optimiser_begin_anew_with_each_update(game: Lab) -> None:
    run = game.fit(*TWO, "--spec.optimizer.warmup", "1", "--spec.optimizer.decay", "linear", spec="onpo")
    rates = [value for _, value in game.metrics(run).series["train/lr"]]
    rows = [len(read_pairs(Journal(run / "journal"), t)[0]) for t in (1, 2)]
    steps = [-(-rows[t // 2] // 3) for t in range(4)]
    expected = [1e-3 * (0.5 if step == 0 else 1 - (step - 1) / (total - 1)) for total in steps for step in range(total)]
    assert rates == pytest.approx(expected)


def test_offline_commands_say_why_a_game_has_nothing_for_them(game: Lab, refused: Callable[..., str]) -> None:
    assert "makes its rows in its own rounds" in refused("validate", "--spec", "onpo", "--config", str(game.run_file))

"""The command, end to end on a tiny model: what it makes, and that a kill anywhere changes nothing of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from killing import killed_run
from nashtune.cli.main import main
from nashtune.comparison import runner
from nashtune.comparison.rate import rate
from nashtune.comparison.ratings import Ratings
from nashtune.comparison.spent import Spent
from nashtune.data.digests import known_sha256
from nashtune.errors import InputError
from nashtune.pipeline import fit_command
from nashtune.trust import grants

MEASURED = ("seconds", "wall_seconds", "tokens_per_second", "peak_memory_gib")
AFTER_TRAINING = {
    "after the second policy's answers": ("nashtune.pipeline.journalled:write_completions", 2, True),
    "while answers are compared with the start": ("nashtune.journal.store:Journal.write_tensors", 6, True),
    "between scores and judgements": ("nashtune.journal.store:Journal.write_table", 7, True),
    "after the first seed's judgements": ("nashtune.journal.store:Journal.write_table", 8, True),
    "between answers and judgements as files": ("nashtune.comparison.runner:write_verdicts", 1, False),
    "before the ratings": ("nashtune.comparison.runner:rate", 1, False),
    "before the page": ("nashtune.comparison.runner:write_json", 1, True),
}
IN_A_TRAINING = {
    "before the first checkpoint": (1, "nashtune.training.module:AlignmentModule.training_step", 1, False),
    "in the middle": (1, "nashtune.training.module:AlignmentModule.training_step", 3, False),
    "while a game's model is exported": (2, "nashtune.training.finish:export_policy", 1, False),
}


def made(out: Path) -> dict[str, object]:
    """Everything that must not depend on what happened on the way."""
    found: dict[str, object] = {name: (out / name).read_bytes() for name in ("answers.parquet", "judgements.parquet")}
    for weights in sorted(out.glob("runs/*/*/export/model.safetensors")):
        found[str(weights.relative_to(out))] = weights.read_bytes()
    figures = json.loads((out / "comparison.json").read_text())
    for cost in figures["costs"]:
        for name in MEASURED:
            assert cost.pop(name) > 0
    assert all(seconds > 0 for seconds in figures.pop("phases").values())
    return {**found, "figures": figures}


def kept(out: Path) -> Iterable[Path]:
    """Finished parts of the work: journals, and models of trainings that are over."""
    journal = [path for path in (out / "journal").rglob("*") if path.suffix in (".parquet", ".safetensors")]
    return [path for path in journal if not path.name.startswith(".")] + list(out.glob("runs/*/*/export/*.safetensors"))


def forget(out: Path, *, trainings: bool) -> None:
    """As the folder was before its policies answered, or before they were trained."""
    for name in ("answers.parquet", "judgements.parquet", "comparison.json", "index.html"):
        (out / name).unlink()
    shutil.rmtree(out / "journal")
    if trainings:
        shutil.rmtree(out / "runs")


def test_what_a_comparison_makes(whole):
    out = whole / "out"
    answers = pq.read_table(out / "answers.parquet").to_pylist()
    assert len(answers) == 3 * 2 * 5
    assert {(one["policy"], one["seed"]) for one in answers} == {
        (name, seed) for name in ("start", "dpo", "online_dpo") for seed in (0, 1)
    }
    start = [one for one in answers if one["policy"] == "start"]
    assert all(one["logp"] == one["logp_start"] for one in start)
    assert len({one["text"] for one in start}) > 5, "seeds share their noise"
    assert all(1 <= one["tokens"] <= 6 and one["reward"] is not None for one in answers)
    rows = [json.loads(line) for line in (whole / "validation.jsonl").read_text().splitlines()]
    assert [one["prompt_text"] for one in answers[:5]] == [row["prompt"] for row in rows]
    judgements = pq.read_table(out / "judgements.parquet").to_pylist()
    pairs = {(one["first"], one["second"]) for one in judgements}
    assert pairs == {("start", "dpo"), ("start", "online_dpo"), ("dpo", "online_dpo")}
    comparisons = {(one["first"], one["second"], one["seed"], one["prompt"]) for one in judgements}
    assert len(comparisons) == 3 * 2 * 5
    figures = json.loads((out / "comparison.json").read_text())
    ratings = Ratings.from_dict(figures["ratings"])
    assert (ratings.policies, ratings.seeds, ratings.prompts) == (("start", "dpo", "online_dpo"), 2, 5)
    own = [one["p"] for one in judgements if (one["first"], one["second"]) == ("start", "dpo")]
    weights = [0.5 if one["order"] != "equal" else 1.0 for one in judgements if one["second"] == "dpo"]
    mean = sum(p * weight for p, weight in zip(own, weights, strict=True)) / sum(weights)
    assert ratings.win_rate.value[0, 1] == pytest.approx(mean)
    assert ratings.frontier is not None
    assert ratings.frontier.kl.value[0] == 0
    assert ratings.frontier.kl.value[1] > 0
    assert "<html" in (out / "index.html").read_text()


def test_costs_of_all_kinds(whole):
    figures = json.loads((whole / "out" / "comparison.json").read_text())
    costs = {(one["policy"], one["seed"]): one for one in figures["costs"]}
    assert {one["steps"] for one in costs.values()} == {3}
    dpo, game = costs["dpo", 0], costs["online_dpo", 0]
    assert (dpo["generations"], dpo["judgements"]) == (0, 0)
    assert game["generations"] == 16  # 8 prompts over 2 rounds, 2 completions each; the third step needs the second
    assert game["judgements"] > 0
    assert dpo["tokens"] > 0
    assert game["tokens"] > 0
    assert figures["budget"] == {"kind": "steps", "amount": 3}
    assert any("dpo does not read schedule.rounds" in note for note in figures["remarks"])


def test_what_is_said_of_budget_judge_and_orders(whole):
    figures = json.loads((whole / "out" / "comparison.json").read_text())
    assert figures["trained_on_judge"] == ["online_dpo"]
    assert figures["remarks"][0].startswith("online_dpo was trained on this judge (rules), dpo was not")
    dpo = {**figures["spent"]["dpo"]}
    assert dpo.pop("tokens") > 0
    assert dpo == {"steps": 3, "generations": 0, "of": {"steps": 3}}
    judged = figures["judged"]
    assert [(one["first"], one["second"]) for one in judged] == [
        ("start", "dpo"),
        ("start", "online_dpo"),
        ("dpo", "online_dpo"),
    ]
    assert all(one["wins"] + one["ties"] + one["losses"] + one["unanswered"] == 2 * 5 for one in judged)
    assert all(one["changed"] == 0 for one in judged), "a judge that gives rewards knows no order"
    assert {one["lr_share"] for one in figures["costs"]} == {1.0}
    assert all(one["wall_seconds"] >= one["seconds"] for one in figures["costs"])


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_every_learning_rate_warms_up_and_ends_within_the_budget(pit, same_process, monkeypatch, decay):
    """An offline method, a game and reinforcement learning that has planned for more: the same schedule for all."""
    seen: dict[str, list[float]] = {}
    step = Spent.on_before_optimizer_step

    def watch(self, trainer, module, optimizer):
        seen.setdefault(module.spec.name, []).append(optimizer.param_groups[0]["lr"])
        step(self, trainer, module, optimizer)

    monkeypatch.setattr(Spent, "on_before_optimizer_step", watch)
    monkeypatch.setattr(runner, "rate", partial(rate, resamples=50))
    options = ["--spec.optimizer.warmup", "0.34", "--spec.optimizer.decay", decay, "--spec.schedule.steps", "8"]
    options += ["--spec.oracle.rules", "[length]"]
    options += ["--data.batch_size", "1", "--spec.sampler.completions", "4", "--prompts", "2"]
    command = ["compare", "dpo", "online_dpo", "rloo", "--config", "run.yaml", "--run_dir", "out", "--steps", "4"]
    assert main([*command, *options, "--spec.schedule.rounds", "1", "--data.prompts_per_round", "8"]) == 0
    warm, second = 0.01 / 3, {"linear": 0.5, "cosine": 0.5}[decay]
    expected = [warm, 2 * warm, 0.01, 0.01 * second]
    assert seen == {name: pytest.approx(expected) for name in ("dpo", "online_dpo", "rloo")}
    costs = json.loads(Path("out/comparison.json").read_text())["costs"]
    assert {(one["steps"], one["lr_share"]) for one in costs} == {(4, 1.0)}


def test_a_run_of_a_comparison_is_a_run_of_its_own(whole, monkeypatch):
    """The same training by `fit`, with the same settings, gives the same weights."""
    monkeypatch.chdir(whole)
    config = whole / "out/runs/dpo/seed-1.yaml"
    command = ["fit", "--config", str(config), "--run_dir", "alone", "--allow-import", "nashtune.comparison.spent"]
    assert main(command) == 0
    weights = "export/model.safetensors"
    assert (whole / "alone" / weights).read_bytes() == (whole / "out/runs/dpo/seed-1" / weights).read_bytes()
    other = whole / "out/runs/dpo/seed-0" / weights
    assert (whole / "alone" / weights).read_bytes() != other.read_bytes()


@pytest.mark.parametrize("moment", AFTER_TRAINING)
def test_killed_after_the_trainings_and_run_again(whole, again, command, moment, monkeypatch):
    target, call, after = AFTER_TRAINING[moment]
    forget(again / "out", trainings=False)
    assert killed_run(command, str(again), target, call, after=after) == -9
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained again"))
    stamps = {path: path.stat().st_mtime_ns for path in kept(again / "out")}
    assert main(["compare", "--run_dir", "out"]) == 0
    assert made(again / "out") == made(whole / "out")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "something was done again"


@pytest.mark.parametrize("moment", IN_A_TRAINING)
def test_killed_in_a_training_and_run_again(whole, again, command, moment, monkeypatch):
    number, target, call, after = IN_A_TRAINING[moment]
    forget(again / "out", trainings=True)
    calls: list[list[str]] = []

    def dies(arguments, work):
        calls.append(list(arguments))
        trusted = [*arguments, *grants().arguments()]
        if len(calls) == number:
            code = killed_run(trusted, str(again), target, call, after=after)
            raise InputError(f"ended with {code}")
        if main(trusted):
            raise InputError("failed")

    monkeypatch.setattr(fit_command, "call", dies)
    assert main(command) == 2
    stamps = {path: path.stat().st_mtime_ns for path in kept(again / "out")}
    assert main(command) == 0
    assert len(calls) == 5  # four trainings, of which one was taken up once
    assert made(again / "out") == made(whole / "out")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_kill_dash_nine_of_everything_then_the_folder_alone(whole, again):
    """A real command line, and its training as a process of its own, killed in the middle of the training."""
    shutil.rmtree(again / "out/runs/dpo/seed-0")
    forget(again / "out", trainings=False)
    code = "import sys; from nashtune.cli.main import main; sys.exit(main(sys.argv[1:]))"
    start = [sys.executable, "-c", code, "compare", "--run_dir", "out"]
    with subprocess.Popen(start, stdout=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 240
        while not any((again / "out/runs/dpo/seed-0/checkpoints").glob("step=*.ckpt")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.read()  # until the training is gone, too: it holds the folder's lock for as long as it ends
    done = subprocess.run([*start, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = ("answers.parquet", "judgements.parquet", "runs/dpo/seed-0/export/model.safetensors")
    assert all((again / "out" / name).read_bytes() == (whole / "out" / name).read_bytes() for name in files)
    figures = json.loads(done.stdout)
    assert figures == json.loads((again / "out/comparison.json").read_text())
    assert "train 2/4 online_dpo, seed 0: done before" in done.stderr


def test_what_is_done_is_only_shown_again(again, command, monkeypatch, capsys):
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained again"))
    before = made(again / "out")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "train 1/4 dpo, seed 0: done before" in shown
    assert "note: dpo does not read schedule.rounds (--spec.schedule.rounds): it draws no completions" in shown
    assert "page:    out/index.html" in shown
    assert made(again / "out") == before


def test_another_comparison_does_not_go_on_here(again, command, refused):
    assert "seeds" in refused(*command, "--seeds", "3")
    assert "--run_dir: out/runs has no comparison.yaml and is not empty" in refused(*command, "--run_dir", "out/runs")
    assert "no nowhere/comparison.yaml" in refused("compare", "--run_dir", "nowhere")
    assert "--run_dir alone goes on" in refused("compare", "--run_dir", "out", "--seeds", "2")


def test_other_weights_have_not_answered(again, command, refused):
    weights = again / "out/runs/dpo/seed-0/export/model.safetensors"
    shutil.copy(again / "out/runs/dpo/seed-1/export/model.safetensors", weights)
    said = refused(*command)
    assert "out/runs/dpo/seed-0/export: other weights, or other prompts, than those whose answers are in" in said
    assert "delete the folder out/journal, so that" in said


def test_another_start_has_not_answered(again, command, refused, tiny):
    """The folder of the starting policy holds other weights than those that answered and were trained."""
    key = again / "out/journal/answers/start/seed-0/weights.txt"
    assert "model.safetensors" in key.read_text()
    key.write_text(key.read_text().replace(known_sha256(tiny / "model.safetensors"), "0" * 64))
    assert (
        f"{tiny}: other weights, or other prompts, than those whose answers are in out/journal/answers/start"
        in refused(*command)
    )


def test_other_versions_are_said(again, command, monkeypatch, capsys):
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained again"))
    saved = again / "out/comparison.yaml"
    saved.write_text(saved.read_text().replace(f"torch: {torch.__version__}", "torch: 1.0.0"))
    assert main(command) == 0
    said = f"note: begun with other versions, which may give other numbers: torch 1.0.0 there, {torch.__version__} here"
    assert said in capsys.readouterr().out
    assert said.removeprefix("note: ") in json.loads((again / "out/comparison.json").read_text())["remarks"]


def test_the_folder_alone_goes_on_from_anywhere(again, monkeypatch, tmp_path):
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained again"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["compare", "--run_dir", str(again / "out")]) == 0


def test_the_folder_is_left_alone_while_somebody_works_there(again, command, refused):
    from nashtune.pipeline.folder import held

    with held(again / "out", "a comparison"):
        assert "a comparison, or the training that one has started, is still at work in out" in refused(*command)


def test_a_mistake_leaves_nothing_behind(pit, refused):
    said = refused(
        "compare", "dpo", "online_dpo", "--config", "run.yaml", "--run_dir", "new", "--data.train", "no.jsonl"
    )
    assert "no.jsonl" in said
    said = refused("compare", "dpo", "--config", "run.yaml", "--run_dir", "new", "--prompts", "6")
    assert "--prompts 6: data.validation has 5 different prompts" in said
    assert not (pit.folder / "new").exists()


def test_a_numbered_folder(pit, same_process):
    for number in (1, 2):
        assert main(["compare", "dpo", "--config", "run.yaml", "--steps", "1", "--prompts", "2"]) == 0
        folder = Path(f"comparisons/dpo-00{number}")
        assert json.loads((folder / "comparison.json").read_text())["ratings"]["prompts"] == 2
        assert (folder / "index.html").is_file()

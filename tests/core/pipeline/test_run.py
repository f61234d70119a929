from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from killing import killed_run
from lab import Lab
from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.pipeline import fit_command
from nashtune.pipeline.fit_stage import _summary

IN_THE_FILTER = {
    "while answers are scored": ("nashtune.journal.store:Journal.write_tensors", 1, False),
    "after answers are scored": ("nashtune.journal.store:Journal.write_tensors", 1, True),
    "while sampling": ("nashtune.pipeline.journalled:write_completions", 1, False),
    "while own samples are scored": ("nashtune.journal.store:Journal.write_tensors", 2, False),
    "before the picture": ("nashtune.pipeline.perplexity_filter:draw", 1, False),
    "before the rows": ("nashtune.pipeline.perplexity_filter:draw", 1, True),
    "before the record of the end": ("nashtune.pipeline.runner:write_record", 2, False),
    "after the record of the end": ("nashtune.pipeline.runner:write_record", 2, True),
    "before the record of the beginning": ("nashtune.pipeline.runner:write_record", 1, False),
    "before the pipeline is saved": ("nashtune.cli.run:save", 1, False),
}
IN_THE_TRAINING = {
    "before the first checkpoint": ("nashtune.training.module:AlignmentModule.training_step", 2, False),
    "in the middle": ("nashtune.training.module:AlignmentModule.training_step", 5, True),
    "while the last checkpoint is written": (
        "nashtune.training.checkpoint:AtomicCheckpointIO.save_checkpoint",
        3,
        False,
    ),
    "while it finishes": ("nashtune.training.finish:export_policy", 1, False),
    "when it has finished": ("nashtune.training.finish:print_report", 1, True),
}
UNDISTURBED: dict[str, bytes] = {}
MADE = ("filter/train.jsonl", "filter/report.json", "filter/scores.jsonl", "dpo/run/export/model.safetensors")


def made(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in MADE}


@pytest.fixture
def undisturbed(line, same_process) -> dict[str, bytes]:
    """What a run that nobody stops makes; nothing of it depends on its folder, so one serves all moments."""
    if not UNDISTURBED:
        UNDISTURBED.update(made(line.run(folder="whole")))
    return UNDISTURBED


def command(line: Lab) -> list[str]:
    return ["run", "methodology_dpo", "--config", str(line.run_file), "--run_dir", "out"]


@pytest.mark.parametrize("moment", IN_THE_FILTER)
def test_killed_in_the_filter_and_run_again(line, undisturbed, moment):
    target, call, after = IN_THE_FILTER[moment]
    assert killed_run(command(line), str(line.folder), target, call, after=after) == -9
    assert made(line.run()) == undisturbed


@pytest.mark.parametrize("moment", IN_THE_TRAINING)
def test_killed_in_the_training_and_run_again(line, undisturbed, moment, monkeypatch, capsys):
    """The training dies alone: the pipeline says so, and the same command goes on."""
    target, call, after = IN_THE_TRAINING[moment]

    def dies(arguments, work):
        code = killed_run(arguments, str(line.folder), target, call, after=after)
        raise InputError(f"ended with {code}")

    with monkeypatch.context() as patched:
        patched.setattr(fit_command, "call", dies)
        assert main(command(line)) == 2
    assert "ended with -9" in capsys.readouterr().err
    before = (line.folder / "out/filter/train.jsonl").stat().st_mtime_ns
    assert made(line.run()) == undisturbed
    assert (line.folder / "out/filter/train.jsonl").stat().st_mtime_ns == before, "the filter was done again"


def test_killed_between_the_stages(line, undisturbed):
    assert killed_run(command(line), str(line.folder), "nashtune.pipeline.fit_stage:train", 1, after=False) == -9
    assert made(line.run()) == undisturbed


def test_kill_dash_nine_of_everything_then_the_same_command(line, undisturbed):
    """A real command line, and its training as a process of its own, killed in the middle of the training."""
    code = "import sys; from nashtune.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environ = {**os.environ, "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
    start = [sys.executable, "-c", code, *command(line)]
    with subprocess.Popen(start, stdout=subprocess.PIPE, start_new_session=True, env=environ) as process:
        deadline = time.monotonic() + 240
        while not any((line.folder / "out/dpo/run/checkpoints").glob("step=*.ckpt")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.read()  # until the training is gone, too: it holds the folder's lock for as long as it ends
    done = subprocess.run([*start, "--json"], capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)
    assert [entry["stage"] for entry in entries] == ["filter", "dpo"]
    assert entries[1]["outputs"]["export"] == "out/dpo/run/export"
    assert entries[1]["numbers"]["steps"] == 6
    assert "stage 1/2 filter (perplexity_filter): done before; kept" in done.stderr
    assert made(line.folder / "out") == undisturbed


def test_a_folder_that_somebody_works_in_is_left_alone(line, refused):
    """Also when that is a training whose pipeline was killed: it holds the lock that it has inherited."""
    from nashtune.pipeline.folder import held

    with held(line.folder / "out") as lock:
        orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    assert "is still at work in out" in refused(*command(line))
    orphan.communicate(b"\n")
    with held(line.folder / "out"):
        pass


def test_what_is_done_is_not_done_again(line, undisturbed, capsys, monkeypatch):
    out = line.run()
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr(fit_command, "call", lambda *args: pytest.fail("trained again"))
    capsys.readouterr()
    assert main(["run", "--run_dir", "out"]) == 0
    shown = capsys.readouterr().out
    assert "stage 2/2 dpo (fit): done before; 6 steps, held-out accuracy" in shown
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    record = json.loads((out / "filter/stage.json").read_text())
    assert record["state"] == "done"
    assert record["outputs"]["train"]["path"] == "filter/train.jsonl"
    assert len(record["outputs"]["train"]["sha256"]) == 64
    assert line.run("--stages.filter.batch_tokens", "512") == out  # how it works is not what comes out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--stages.filter.q", "0.9"],
            "settings changed since this stage began in out/filter: q: 0.95 there, 0.9",
        ),
        (["--stages.dpo.run.spec.kl.beta", "0.2"], "stages.dpo: settings changed since this stage began in out/dpo: "),
        (["--stages.dpo.run.data.batch_size", "2"], "data.batch_size: 4 there, 2 here. Put them back to go on"),
        (["--stages.dpo.spec", "ipo"], 'spec.name: "dpo" there, "ipo" here'),
        (["--seed_everything", "3"], "seed_everything: 0 there, 3 here"),
        (["--data.limit", "9"], "data.limit: null there, 9 here"),
    ],
)
def test_changed_settings_are_refused(line, undisturbed, refused, options, said):
    if not (line.folder / "out").exists():
        line.run()
    saved = (line.folder / "out/pipeline.yaml").read_bytes()
    assert said in refused(*command(line), *options)
    assert (line.folder / "out/pipeline.yaml").read_bytes() == saved
    assert main(["run", "--run_dir", "out"]) == 0


def test_a_stage_that_has_not_begun_may_be_changed(line, undisturbed, refused):
    assert killed_run(command(line), str(line.folder), "nashtune.pipeline.runner:write_record", 3, after=False) == -9
    line.run("--stages.dpo.run.trainer.max_steps", "2")
    assert json.loads((line.folder / "out/dpo/stage.json").read_text())["numbers"]["steps"] == 2


def test_changed_files_are_refused(line, undisturbed, refused):
    out = line.run()
    rows = line.folder / "train.jsonl"
    text = rows.read_text()
    rows.write_text(text.replace("books", "boots"))
    assert "stages.filter: what it reads changed since this stage began" in refused(*command(line))
    rows.write_text(text)
    made_rows = out / "filter" / "train.jsonl"
    made_rows.write_text(made_rows.read_text() + "\n")
    said = refused(*command(line))
    assert "stages.filter: what it made changed since this stage began in out/filter: train (out/filter/train" in said
    assert "delete out/filter and out/dpo to do this stage anew" in said
    (out / "dpo" / "stage.json").write_text("{")
    assert "out/dpo/stage.json is torn or was altered" in refused(*command(line))


def test_a_folder_of_something_else_is_refused(line, refused):
    (line.folder / "out").mkdir()
    (line.folder / "out" / "notes.txt").write_text("mine")
    said = refused(*command(line))
    assert "--run_dir: out has no pipeline.yaml and is not empty, and nothing is ever overwritten" in said
    assert "no empty/pipeline.yaml, hence no pipeline to go on with" in refused("run", "--run_dir", "empty")
    assert "run: which pipeline?" in refused("run")


def test_a_folder_of_another_pipeline_is_refused(line, refused, same_process):
    only = "stages:\n  filter: {name: perplexity_filter, rule: absolute, tau: 1.0e+9}\n"
    (line.folder / "mine.yaml").write_text(only)
    (line.folder / "yours.yaml").write_text(only)
    out = line.run(pipeline="mine.yaml")
    saved = (out / "pipeline.yaml").read_bytes()
    start = ["--config", str(line.run_file), "--run_dir", "out"]
    assert (
        "--run_dir: out holds the pipeline mine (stages filter), and this is methodology_dpo (stages filter, dpo); "
        "choose another --run_dir"
    ) in refused("run", "methodology_dpo", *start)
    assert "and this is yours (stages filter); choose" in refused("run", "yours.yaml", *start)
    (line.folder / "mine.yaml").write_text(only + "  last: {name: fit, spec: dpo}\n")
    assert "and this is mine (stages filter, last); choose" in refused("run", "mine.yaml", *start)
    assert (out / "pipeline.yaml").read_bytes() == saved
    (line.folder / "mine.yaml").write_text(only)
    assert line.run(pipeline="mine.yaml") == out


def test_held_out_figures_of_the_final_table():
    reports = [{"steps": 6, "held_out": {"best_over_worst": value, "loss": 0.5}} for value in (0.75, 0.875)]
    assert _summary(*reports) == "6 steps, held-out best_over_worst 0.75 to 0.875, held-out loss 0.5"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "methodology_dp"],
        ["run", "methodology_dpo", "--config", "{run}", "--stages.filter.tua", "3"],
        ["run", "methodology_dpo", "--config", "{run}", "--stages.dpo.run.spec.kl.bta", "3"],
        ["run", "methodology_dpo", "--config", "{run}", "--stages.dpo.run.data.validation", "nowhere.jsonl"],
        ["run", "methodology_dpo", "--config", "{run}", "--stages.dpo.run.trainer.max_step", "3"],
        ["run", "methodology_dpo", "--config", "{run}", "--spec", "ipo"],
    ],
)
def test_mistakes_are_refused_before_torch(line, imported, arguments):
    assert imported(*(argument.format(run=line.run_file) for argument in arguments)) == [2]
    assert not (line.folder / "runs").exists()


def test_members_are_trained_with_seeds_of_their_own(line, same_process, monkeypatch):
    """`seeds: 2` gives two runs and one folder with both models; a killed one goes on with the second."""
    (line.folder / "two.yaml").write_text("stages:\n  members: {name: fit, spec: dpo, seeds: 2}\n")
    config = yaml.safe_load(line.run_file.read_text())
    del config["stages"]
    line.run_file.write_text(yaml.safe_dump(config))
    run = fit_command.call
    calls = []

    def second_dies(arguments, work):
        calls.append(arguments)
        if len(calls) == 2:
            raise InputError("died")
        run(arguments, work)

    monkeypatch.setattr(fit_command, "call", second_dies)
    line.run(pipeline="two.yaml", code=2)
    out = line.run(pipeline="two.yaml")
    assert len(calls) == 3
    record = json.loads((out / "members/stage.json").read_text())
    assert record["outputs"]["export"]["path"] == "members/export"
    weights = [(out / "members/export" / name / "model.safetensors").read_bytes() for name in ("seed-0", "seed-1")]
    assert weights[0] != weights[1]
    assert set(record["numbers"]["members"]) == {"seed-0", "seed-1"}
    alone = line.fit("--seed_everything", "1", run="alone")
    assert (alone / "export/model.safetensors").read_bytes() == weights[1]


def test_progress_and_the_final_table(line, same_process, capsys):
    line.run()
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].startswith("pipeline methodology_dpo: 2 stages in ")
    assert any(text.startswith("stage 1/2 filter (perplexity_filter): kept ") for text in lines)
    assert any(text.startswith("stage 2/2 dpo (fit): 6 steps, held-out accuracy ") for text in lines)
    table = [text.split()[0] for text in lines[-5:] if text.split()]
    assert table[-2:] == ["filter", "dpo"]

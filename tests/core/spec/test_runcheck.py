from __future__ import annotations

import json

import pytest

from nashtune.errors import InputError
from nashtune.spec.resolve import resolve
from nashtune.spec.run import Runs, load_runs, split_cli
from nashtune.spec.runcheck import Checked, check_run
from nashtune.spec.runoptions import precheck, put_options
from nashtune.spec.runtrainer import trainer_options

PAIR = {"prompt": "Q", "chosen": "yes", "rejected": "no"}


@pytest.fixture
def checked(write, tiny):
    """Checks a run of ten pairs, with options on top."""

    def checked(*argv: str, spec: str = "dpo", text: str = "", rows: list | None = None) -> Checked:
        lines = rows if rows is not None else [{**PAIR, "prompt": f"Q{i}"} for i in range(10)]
        write("\n".join(json.dumps(row) for row in lines), "rows.jsonl")
        base = write(f"policy: {{path: {tiny}}}\ndata: {{train: rows.jsonl, batch_size: 2}}\n", "base.yaml")
        runs = load_runs([base, *([write(text, "run.yaml")] if text else [])])
        line = split_cli(argv)
        return check_run(resolve(spec, [*runs.overrides, *line.overrides]), put_options(runs, line.rest))

    return checked


@pytest.fixture
def run(checked):
    """The notes of such a run."""
    return lambda *argv, **kwargs: checked(*argv, **kwargs).notes


def refused(run, *argv, **kwargs) -> list[str]:
    with pytest.raises(InputError) as caught:
        run(*argv, **kwargs)
    return str(caught.value).splitlines()


def test_a_right_run_says_rows_model_and_steps(run):
    notes = run()
    assert "data.train: 10 pairs from rows.jsonl" in notes
    assert any(
        note.startswith("policy: ") and note.endswith("has a model, its tokenizer and a chat template")
        for note in notes
    )
    assert "steps: 5 in all, 5 per epoch (10 pairs, batch_size 2, accumulate 1, devices 1)" in notes


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--trainer.max_epochs", "3"], "steps: 15 in all, 5 per epoch"),
        (["--trainer.max_epochs", "3", "--trainer.max_steps=4"], "steps: 4 in all, 5 per epoch"),
        (["--trainer.max_epochs", "-1"], "steps: no end in all"),
        (["--trainer.accumulate_grad_batches", "2"], "steps: 3 in all, 3 per epoch"),
        (["--data.batch_size", "3"], "steps: 4 in all, 4 per epoch"),
        (["--trainer.devices", "2"], "steps: 3 in all, 3 per epoch (10 pairs, batch_size 2, accumulate 1, devices 2)"),
        (["--data.limit", "4"], "steps: 2 in all, 2 per epoch (4 pairs"),
    ],
)
def test_steps(run, argv, said):
    assert any(said in note for note in run(*argv))


def test_pairs_are_two_examples_each_for_an_unpaired_loss(run):
    assert "data.train: 20 examples from rows.jsonl" in run(spec="kto")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policy: {pth: x}", "run.yaml:1: policy.pth is not an option of the section 'policy'; did you mean 'path'?"),
        ("policy: {precision: fp16}", "run.yaml:1: policy.precision: expected 'fp32' or 'bf16', found 'fp16'"),
        ("policy:\n  lora: {rank: 8}", "run.yaml:2: policy.lora.rank: not an option of LoraSettings"),
        ("policy:\n  lora:\n    r: 0", "run.yaml:3: policy.lora.r: expected a whole number > 0, found 0"),
        ("policy: [x]", "policy takes a mapping of options, found ['x']"),
        ("data: {batch_size: 0}", "run.yaml:1: data.batch_size: expected a whole number > 0, found 0"),
        ("data:\n  trian: x", "run.yaml:2: data.trian is not an option of the section 'data'; did you mean 'train'?"),
        ("data: {overflow: cut}", "run.yaml:1: data.overflow: expected"),
        (
            "trainer: {max_step: 5}",
            "run.yaml:1: trainer.max_step is not an option of Lightning's Trainer; did you mean 'max_steps'?",
        ),
        ("trainer: {max_epochs: abc}", "run.yaml:1: trainer.max_epochs: expected a whole number or none, found 'abc'"),
        ("trainer: 5", "run.yaml:1: trainer takes a mapping of options, found 5"),
        (
            "samples: {prompt: 1}",
            "run.yaml:1: samples.prompt is not an option of the section 'samples'; did you mean 'prompts'?",
        ),
        (
            "engine: tield",
            "run.yaml:1: engine: expected 'auto' or 'shared' or 'packed' or 'tiled' or 'dense', found 'tield'",
        ),
        ("seed_everything: -1", "run.yaml:1: seed_everything: expected"),
        ("save_every: 0", "run.yaml:1: save_every: expected a whole number > 0, found 0"),
        ("run_dir: 5", "run.yaml:1: run_dir: expected text or none, found 5"),
        ("data: {labels: soft}", "rows.jsonl:1: data.labels: soft needs 'p_chosen' in every row"),
        ("data: {train: nowhere.jsonl}", "nowhere.jsonl: no such file"),
        ("data: {train: null}", "data.train is missing"),
        ("policy: {path: /nowhere/at/all}", "run.yaml:1: policy.path: no folder /nowhere/at/all"),
    ],
)
def test_what_is_refused(run, text, said):
    assert any(said in line for line in refused(run, text=text))


def test_options_are_checked_as_run_files_are(run):
    lines = refused(run, "--policy.precision", "fp16", "--data.trian=x")
    assert lines[0].startswith("--policy.precision: expected 'fp32' or 'bf16'")
    assert lines[1].startswith("--data.trian: data.trian is not an option")
    with pytest.raises(InputError, match=r"unknown option --trian; did you mean '--trainer'"):
        run("--trian", "x")
    with pytest.raises(InputError, match=r"--data.train needs a value"):
        run("--data.train")


def test_appending_to_a_list_of_the_trainer_is_left_to_lightning(run):
    assert run(text="trainer: {callbacks+: [{class_path: X}]}")


def test_bad_rows_are_named_with_their_line(run):
    lines = refused(run, rows=[PAIR, {"prompt": "Q", "chosen": "a"}])
    assert lines[0].startswith("rows.jsonl:2: ")


def test_soft_labels_need_a_loss_that_reads_them(run):
    lines = refused(run, "--data.labels=soft", spec="simpo", rows=[{**PAIR, "p_chosen": 0.9}])
    assert lines == [
        "--data.labels: soft, but the spec's loss does not read p_chosen; use data.labels: hard, or another loss"
    ]


def test_examples_need_two_of_them_in_a_batch(run):
    lines = refused(run, "--data.batch_size=1", spec="kto")
    assert lines[0].startswith("--data.batch_size: 1, but the spec's loss compares each example with another one")


def test_a_model_without_tokenizer_or_template(run, write, tiny, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    for file in folder.glob("chat_template*"):
        file.unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "has no chat template; set data.template: plain" in refused(run, f"--policy.path={folder}")[0]
    assert any("its tokenizer" in note for note in run(f"--policy.path={folder}", "--data.template=plain"))
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(run, f"--policy.path={folder}", "--data.template=plain")[0]


def test_adapter_off_needs_an_adapter(run, write):
    write("base: dpo\nreferences: {ref: adapter_off}", "off.yaml")
    (line,) = refused(run, spec="./off.yaml")
    assert "off.yaml:2: references.ref: adapter_off, but all weights are trained" in line
    assert run("--policy.lora", "{r: 4}", spec="./off.yaml")


def test_what_is_made_when_the_run_starts_is_said_to_be_unchecked(run):
    notes = run("--policy.path", "demo:smollm2", "--data.validation", "hub:owner/name")
    assert "policy: demo:smollm2 is made ready when the run starts; not checked here" in notes
    assert "data.validation: hub:owner/name is downloaded when the run starts; not checked here" in notes


def test_a_run_without_policy_and_data():
    with pytest.raises(InputError) as caught:
        check_run(resolve("dpo"), Runs({"engine": "tiled"}, None, (), {}))
    assert "the section 'policy' needs policy.path: text" in str(caught.value)


def test_the_trainers_options_are_those_of_lightning():
    import inspect

    from lightning.pytorch import Trainer

    assert set(trainer_options()) == set(inspect.signature(Trainer).parameters)


ORACLE = "--spec.oracle=vader"
ASK = [{"prompt": f"Q{i}"} for i in range(10)]


def test_a_game_reads_prompts_and_says_what_it_will_do(checked):
    """Two rounds of 5 prompts with 8 completions; pairs of a tournament in windows of 2: 3 steps, twice a round."""
    found = checked(ORACLE, "--spec.schedule.rounds=2", "--spec.sampler.max_new_tokens=64", spec="onpo", rows=ASK)
    assert "data.train: 10 prompts from rows.jsonl" in found.notes
    assert "game: 2 rounds of 5 prompts, 8 completions each" in found.notes
    assert "steps: at most 12 in all, 4 updates of 3" in found.notes
    assert "generations: 80 completions of at most 64 tokens" in found.notes
    assert "judgements: at most 80 scores; they make at most 10 pairs" in found.notes
    assert "forward passes: at most 40 sequences in training, 40 once before the updates" in found.notes
    assert any(note.startswith("disk: 5 snapshots of 108 kB; at most 1.4") for note in found.notes)
    assert found.plan is not None
    assert (found.plan.steps, found.plan.snapshots) == (12, 5)
    assert checked().plan is None


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--data.prompts_per_round=4"], "game: 3 rounds of 4 prompts, 8 completions each"),
        (["--data.limit=6"], "game: 3 rounds of 2 prompts, 8 completions each"),
        (["--trainer.max_epochs=2"], "steps: at most 24 in all, 6 updates of 4"),
        (["--trainer.accumulate_grad_batches=2"], "steps: at most 6 in all, 6 updates of 1"),
        (["--trainer.max_steps=3"], "note: trainer.max_steps 3 ends the game before its last round is over"),
        (
            ["--trainer.max_steps=2", "--data.prompts_per_round=10", "--data.batch_size=1"],
            "note: round 1 of 3 draws 10 prompts x 8 completions, and trainer.max_steps 2 ends the run after 2 of that "
            "round's 20 steps, with 2 of its 10 pairs at most; give fewer prompts a round",
        ),
        (["--spec.schedule.aux=virtual"], "steps: at most 6 in all, 3 updates of 2"),
        (["--spec.pairing=iid"], "judgements: at most 80 scores; they make at most 40 pairs"),
        (["--spec.sampler.completions=4"], "generations: 40 completions"),
        (["--policy.lora", "{r: 4}"], "disk: 7 snapshots of 16.4 kB"),
        (["--policy.path=hub:owner/name"], "disk: 7 snapshots; the size is known when the model is ready"),
        (["--spec.optimizer.warmup=50"], "note: an update warms up like a run of its own: warm-up of 50 steps in a"),
        (["--engine=dense", "--samples.prompts=2"], "steps: at most 12 in all"),
    ],
)
def test_the_plan_of_a_game_follows_its_options(run, argv, said):
    assert any(said in note for note in run(ORACLE, *argv, spec="onpo", rows=ASK))


def test_an_oracle_that_compares_is_counted_in_comparisons(run):
    oracle = ["--spec.oracle=raters", "--spec.oracle.raters", "[sentiment, brevity, distinct_2]"]
    assert "judgements: at most 110 comparisons; they make at most 10 pairs" in run(*oracle, spec="onpo", rows=ASK)


def test_a_selecting_sampler_draws_and_scores_more(run):
    notes = run(ORACLE, "--spec.sampler=best_of_n", "--spec.sampler.n=4", spec="onpo", rows=ASK)
    assert "generations: 320 completions of at most 256 tokens" in notes
    assert "judgements: at most 400 scores; they make at most 10 pairs" in notes


def test_a_replay_generates_and_judges_nothing(run):
    notes = run("--spec.sampler=recorded", "--spec.sampler.path=run", spec="onpo", rows=ASK)
    assert "generations: as recorded" in notes
    assert "judgements: as recorded; they make at most 10 pairs" in notes


def test_preference_rows_serve_a_game_as_prompts(run):
    notes = run(ORACLE, spec="onpo")
    assert "data.train: 10 prompts from rows.jsonl" in notes
    assert any("columns not used: chosen, rejected" in note for note in notes)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "spec.oracle: which oracle? The spec leaves it to the run."),
        ([ORACLE, "--data.labels=soft"], "--data.labels: soft, but the spec's loss does not read p_chosen"),
        ([ORACLE, "--data.ranked_pairs=adjacent"], "--data.ranked_pairs: adjacent pairs the answers of the rows"),
        ([ORACLE, "--data.max_length=256"], "--data.max_length: 256 leaves no token for a prompt"),
        (
            [ORACLE, "--spec.sampler.max_new_tokens=512"],
            "--spec.sampler.max_new_tokens: 512 leaves no token for a prompt in the model's context of 512 tokens",
        ),
        (
            [ORACLE, "--data.prompts_per_round=11"],
            "data.prompts_per_round: 11, but data.train has 10 different prompts",
        ),
        ([ORACLE, "--spec.schedule.rounds=11"], "data.train: 10 prompts cannot be split over 11 rounds"),
        ([ORACLE, "--trainer.max_epochs=-1"], "--trainer.max_epochs: -1; in a game it is the passes over the rows"),
        ([ORACLE, "--spec.sampler.completions=6"], "--spec.sampler.completions: the pairing tournament needs a power"),
    ],
)
def test_what_is_refused_of_a_game(run, argv, said):
    assert any(said in line for line in refused(run, *argv, spec="onpo", rows=ASK))


def test_everything_that_is_wrong_with_a_game_is_said_at_once(run):
    lines = refused(
        run, "--spec.sampler.completions=6", "--data.ranked_pairs=adjacent", spec="onpo", rows=[*ASK, {"promt": "x"}]
    )
    assert [line.partition(": ")[0].rpartition("/")[2].partition(":")[0] for line in lines] == [
        "--spec.sampler.completions",
        "onpo.yaml",
        "rows.jsonl",
        "--data.ranked_pairs",
    ]


def test_prompts_per_round_is_refused_where_no_round_has_prompts(run):
    (line,) = refused(run, "--data.prompts_per_round=3")
    assert line.startswith("--data.prompts_per_round: 3, but the spec's schedule draws no completions")
    assert any("whole number > 0" in line for line in refused(run, "--data.prompts_per_round=0", spec="onpo"))


def test_a_training_command_refuses_a_game_that_cannot_be_played(write):
    with pytest.raises(InputError, match=r"spec\.oracle: which oracle\?"):
        precheck(["--spec", "onpo"])
    with pytest.raises(InputError, match=r"--spec\.sampler\.completions: the pairing tournament needs a power of two"):
        precheck(["--spec", "onpo", "--spec.oracle", "vader", "--spec.sampler.completions", "6"])
    precheck(["--spec", "onpo", "--spec.oracle", "vader"])

from __future__ import annotations

import json

import pytest

from nashtune.errors import InputError
from nashtune.spec.resolve import resolve
from nashtune.spec.run import Runs, load_runs
from nashtune.spec.runcheck import check_run
from nashtune.spec.runoptions import put_options, trainer_options

PAIR = {"prompt": "Q", "chosen": "yes", "rejected": "no"}


@pytest.fixture
def run(write, tiny):
    """Checks a run of ten pairs, with options on top."""

    def run(*argv: str, spec: str = "dpo", text: str = "", rows: list | None = None) -> list[str]:
        lines = rows if rows is not None else [{**PAIR, "prompt": f"Q{i}"} for i in range(10)]
        write("\n".join(json.dumps(row) for row in lines), "rows.jsonl")
        base = write(f"policy: {{path: {tiny}}}\ndata: {{train: rows.jsonl, batch_size: 2}}\n", "base.yaml")
        more = [write(text, "run.yaml")] if text else []
        return check_run(resolve(spec), put_options(load_runs([base, *more]), argv)).notes

    return run


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
        ("engine: tield", "run.yaml:1: engine: expected 'tiled' or 'dense', found 'tield'; did you mean 'tiled'?"),
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

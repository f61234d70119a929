from __future__ import annotations

import json

import pytest
import yaml

from killing import killed_run
from nashtune.comparison.spent_file import FILE, read_spent

GAME = ("--spec.schedule.rounds", "2", "--data.batch_size", "2")


@pytest.fixture
def counted(pit):
    """The run file with the counter, and sections that either kind of spec reads."""

    def fit(spec: str, *arguments: str, tokens: int | None = None, run: str = "run"):
        config = yaml.safe_load(pit.run_file.read_text())
        if spec == "dpo":
            config["spec"] = {"optimizer": config["spec"]["optimizer"]}
        spent = {"class_path": "nashtune.comparison.spent.Spent", "init_args": {"tokens": tokens}}
        config["trainer"]["callbacks"] = [spent]
        file = pit.folder / f"{run}.yaml"
        file.write_text(yaml.safe_dump(config))
        given = ["fit", "--spec", spec, "--config", str(file), "--run_dir", run]
        return pit.folder / run, [*given, *arguments]

    return fit


def trained(found) -> dict[str, float]:
    from nashtune.cli.main import main

    run, command = found
    assert main(command) == 0
    return read_spent(run)


def test_tokens_of_a_pair_are_prompt_and_answer_twice(pit, counted):
    """The tiny tokenizer has a token for each byte and its template one for each turn; EOS ends an answer."""
    spent = trained(counted("dpo", "--data.template", "plain"))
    rows = [json.loads(line) for line in (pit.folder / "train.jsonl").read_text().splitlines()]
    tokens = sum(2 * len(row["prompt"]) + len(row["chosen"]) + len(row["rejected"]) + 2 for row in rows)
    assert (spent["tokens"], spent["steps"]) == (tokens, 4)
    assert spent["seconds"] > 0


@pytest.mark.parametrize(("spec", "options"), [("dpo", ("--trainer.max_epochs", "3")), ("online_dpo", GAME)])
def test_training_stops_when_the_tokens_are_spent(pit, counted, spec, options):
    whole = trained(counted(spec, *options))
    some = trained(counted(spec, *options, tokens=whole["tokens"] // 2, run="half"))
    steps = json.loads((pit.folder / "half/report.json").read_text())["steps"]
    assert 0 < some["steps"] == steps < whole["steps"]
    assert whole["tokens"] // 2 <= some["tokens"] < whole["tokens"]
    less = trained(counted(spec, *options, "--trainer.max_steps", str(steps - 1), run="less"))
    assert less["tokens"] < whole["tokens"] // 2, "it could have stopped a step earlier"


def test_a_run_that_was_killed_counts_as_one_that_was_not(pit, counted):
    options = ("--trainer.max_epochs", "2")
    true = trained(counted("dpo", *options, tokens=700, run="whole"))
    run, command = counted("dpo", *options, tokens=700, run="killed")
    for step in ("nashtune.training.module:AlignmentModule.training_step", "nashtune.training.finish:export_policy"):
        code = killed_run(
            [*command, "--ckpt_path", "auto"], str(pit.folder), step, 3 if "step" in step else 1, after=False
        )
        assert code == -9
    spent = trained((run, [*command, "--ckpt_path", "auto"]))
    clocks = {"seconds": 0, "wall_seconds": 0}
    assert {**spent, **clocks} == {**true, **clocks}
    weights = [(pit.folder / one / "export/model.safetensors").read_bytes() for one in ("whole", "killed")]
    assert weights[0] == weights[1]
    assert (run / FILE).is_file()

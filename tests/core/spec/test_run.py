from __future__ import annotations

import pytest
import yaml

from nashtune.errors import InputError
from nashtune.spec.loader import Located
from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs, split_cli

MODEL = "policy: {path: model}\ndata: {train: a.jsonl, batch_size: 2}\ntrainer:\n  max_epochs: 1\n"


def test_a_command_line_is_taken_apart():
    line = split_cli(
        [
            "--spec",
            "dpo",
            "--config",
            "demo",
            "--config=mine.yaml",
            "-c",
            "x.yaml",
            "--spec.kl.beta",
            "0.2",
            "--trainer.max_steps",
            "5",
        ]
    )
    assert line.spec == "dpo"
    assert line.configs == ("demo", "mine.yaml", "x.yaml")
    assert [one.path for one in line.overrides] == [("kl", "beta")]
    assert line.rest == ("--trainer.max_steps", "5")


def test_a_command_line_without_any_of_it():
    line = split_cli(["--ckpt_path=x", "--print_config"])
    assert (line.spec, line.overrides, line.configs) == (None, (), ())
    assert line.rest == ("--ckpt_path=x", "--print_config")


def test_options_that_begin_alike_are_left_alone():
    assert split_cli(["--specs", "x", "--configs=y"]).rest == ("--specs", "x", "--configs=y")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--spec"], "--spec needs a name or a file, for example `--spec dpo`"),
        (["--spec="], "--spec needs a name or a file"),
        (["--config", "--trainer.max_steps"], "--config needs a name or a file"),
        (["--spec", "dpo", "--spec", "ipo"], "--spec is given as dpo and as ipo; a run trains by one spec"),
    ],
)
def test_a_wrong_command_line(argv, said):
    with pytest.raises(InputError) as caught:
        split_cli(argv)
    assert said in str(caught.value)


def test_later_files_win_key_by_key(write):
    first, second = write(MODEL, "a.yaml"), write("data: {batch_size: 8}\nseed_everything: 3", "b.yaml")
    runs = load_runs([first, second])
    assert runs.data == {
        "policy": {"path": "model"},
        "data": {"train": "a.jsonl", "batch_size": 8},
        "trainer": {"max_epochs": 1},
        "seed_everything": 3,
    }
    assert runs.where("data", "batch_size") == "b.yaml:1"
    assert runs.where("data", "train") == "a.yaml:2"
    assert runs.where("trainer", "max_epochs") == "a.yaml:4"
    assert runs.where("trainer", "nothing") == "a.yaml:3"
    assert (runs.spec, runs.overrides) == (None, ())


def test_another_class_path_drops_the_options_of_the_old_one(write):
    first = write("trainer: {logger: {class_path: A, init_args: {save_dir: x}}}", "a.yaml")
    same = write("trainer: {logger: {class_path: A, init_args: {name: y}}}", "b.yaml")
    other = write("trainer: {logger: {class_path: B, init_args: {name: y}}}", "c.yaml")
    assert load_runs([first, same]).data["trainer"]["logger"]["init_args"] == {"save_dir": "x", "name": "y"}
    assert load_runs([first, other]).data["trainer"]["logger"] == {"class_path": "B", "init_args": {"name": "y"}}


def test_settings_on_top_of_a_spec_lie_below_the_command_line(write):
    first = write("spec: {kl: {beta: 0.5}, loss: {label_smoothing: 0.2}}\n", "a.yaml")
    second = write("spec:\n  kl:\n    beta: 0.6\n", "b.yaml")
    runs = load_runs([first, second])
    spec = resolve("dpo", [*runs.overrides, *split_cli(["--spec.loss.label_smoothing", "0.3"]).overrides])
    assert spec.kl is not None
    assert spec.kl.args["beta"] == 0.6
    assert spec.places["kl", "beta"] == "b.yaml:3"
    assert spec.loss.args["label_smoothing"] == 0.3


def test_a_command_line_swaps_a_component_that_a_run_file_set(write):
    runs = load_runs([write("spec: {kl: {name: fixed, beta: 0.5}}", "a.yaml")])
    argv = ["--spec.kl", "epsilon_dpo", "--spec.kl.beta=0.1", "--spec.kl.epsilon=0.02"]
    spec = resolve("dpo", [*runs.overrides, *split_cli(argv).overrides])
    assert spec.kl is not None
    assert (spec.kl.name, spec.kl.args["beta"], spec.kl.args["epsilon"]) == ("epsilon_dpo", 0.1, 0.02)


def test_a_run_file_may_name_its_spec(write):
    runs = load_runs([write("spec: {kl: {beta: 0.5}}", "a.yaml"), write("spec: dpo", "b.yaml")])
    assert runs.spec == "dpo"
    assert len(runs.overrides) == 1


def test_a_saved_config_stands_alone_and_replaces_what_came_before(write):
    saved = resolve("epsilon_dpo")
    text = yaml.safe_dump({"spec": saved.to_dict(), "policy": {"path": "x"}}, allow_unicode=True)
    runs = load_runs([write("spec: {kl: {beta: 0.5}}", "a.yaml"), write(text, "config.yaml")])
    assert isinstance(runs.spec, Located)
    assert runs.overrides == ()
    spec = resolve(runs.spec)
    assert spec == saved
    assert spec.places["kl", "beta"].startswith("config.yaml:")
    above = load_runs(["config.yaml", write("spec: {kl: {beta: 0.5}}", "c.yaml")])
    assert resolve(above.spec, above.overrides).kl.args["beta"] == 0.5


def test_a_spec_may_be_written_into_a_run_file(write):
    runs = load_runs([write("spec: {name: mine, base: dpo, kl: {beta: 0.5}}", "run.yaml")])
    spec = resolve(runs.spec)
    assert spec.name == "mine"
    assert spec.kl.args["beta"] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("polcy: {path: x}", "run.yaml:1: 'polcy' is not a section of a run file; did you mean 'policy'?"),
        ("policy: {path: x}\npolicy: {path: y}", "run.yaml:2: 'policy' is given twice"),
        ("loss: dpo", "run.yaml:1: this is a spec, not a run file; give it with --spec"),
        ("", "run.yaml: is empty"),
        ("- a", "run.yaml:1: a run file is a mapping of sections"),
        ("spec: {kll: {beta: 1}}", "run.yaml:1: 'kll' is not a section of a spec; did you mean 'kl'?"),
        ("spec: 5", "run.yaml:1: a spec is a mapping of sections"),
        ("a: [", "run.yaml:1: broken YAML"),
    ],
)
def test_a_wrong_run_file(write, text, said):
    with pytest.raises(InputError) as caught:
        load_runs([write(text, "run.yaml")])
    assert said in str(caught.value)


def test_every_wrong_run_file_is_named(write):
    with pytest.raises(InputError) as caught:
        load_runs([write("polcy: 1\ntraner: 2", "a.yaml"), "nowhere", write("dat: 1", "b.yaml")])
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "a.yaml",
        "a.yaml",
        "no run file is called 'nowhere' (known",
        "b.yaml",
    ]

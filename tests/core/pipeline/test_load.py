from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nashtune.errors import InputError
from nashtune.pipeline.load import load_pipeline
from nashtune.pipeline.runner import check_stages
from nashtune.pipeline.settings import sections
from nashtune.trust import granted

SHIPPED = ["methodology_dpo", "methodology_ppo", "reward_ensemble_independent", "reward_ensemble_lora"]

TWO = """\
about: {title: Two, paper: none}
run:
  trainer: {max_epochs: 3, max_steps: 7}
stages:
  first:
    name: perplexity_filter
    rule: absolute
    tau: 30.0
  second:
    name: fit
    spec: dpo
    run:
      data: {train: "@first/train"}
      trainer: {max_steps: 9}
      spec: {kl: {beta: 0.3}}
"""


@pytest.fixture
def two(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(TWO)
    return "two.yaml"


def refused(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_pipeline(*arguments, **options)
    return str(caught.value)


def test_layers_of_a_stage(two, tmp_path):
    (tmp_path / "run.yaml").write_text(
        "policy: {path: m}\ntrainer: {max_steps: 8, max_epochs: 4, accelerator: cpu}\nspec: {optimizer: {lr: 1.0e-3}}\n"
        "stages:\n  second: {run: {trainer: {max_epochs: 5}}}\n  first: {tau: 31}\n"
    )
    own = ["--stages.second.run.spec.kl.beta", "0.4", "--stages.second.run.data.batch_size=2"]
    pipeline = load_pipeline(two, ["run.yaml"], ["--engine", "dense", "--trainer.accelerator", "gpu"], own)
    first, second = pipeline.stages
    assert first.component.args["tau"] == 31.0
    assert sections(first.runs)["trainer"] == {"max_epochs": 4, "max_steps": 8, "accelerator": "gpu"}
    settings = sections(second.runs)
    assert settings["trainer"] == {"max_epochs": 5, "max_steps": 9, "accelerator": "gpu"}
    assert settings["data"] == {"train": "@first/train", "batch_size": 2}
    assert settings["engine"] == "dense"
    assert [one.path for one in second.runs.overrides] == [("optimizer", "lr"), ("kl", "beta"), ("kl", "beta")]
    assert second.runs.where("data", "train") == "two.yaml:13"


def test_a_saved_pipeline_means_the_same(two, tmp_path):
    (tmp_path / "run.yaml").write_text(
        "policy: {path: m}\nspec: {optimizer: {lr: 1.0e-3}}\nstages:\n  second:\n    run:\n      spec:\n"
        "        loss: {name: ipo, tau: 0.2}\n        kl: none\n        references: {ref: none}\n"
    )
    own = ["--stages.second.run.spec.loss", "{name: cdpo_like, x: 1}", "--stages.second.run.spec.loss.name", "ipo"]
    before = load_pipeline(two, ["run.yaml"], ["--data.limit", "5"], own)
    (tmp_path / "saved.yaml").write_text(yaml.safe_dump(before.to_dict()))
    after = load_pipeline("saved.yaml")
    assert after.to_dict() == before.to_dict()
    assert after.name == "two"
    expected = {"kl": {"name": "none"}, "loss": {"name": "ipo"}, "references": {"ref": {"name": "none"}}}
    assert before.stages[1].own["spec"] == expected


def test_options_for_all_that_a_stage_does_not_follow_are_told(two):
    pipeline = load_pipeline(two, [], ["--policy.path", "m", "--trainer.max_steps", "2"])
    first, second = pipeline.stages
    assert first.notes == ()
    assert second.notes == (
        "--trainer.max_steps is not followed by the stage 'second', which sets trainer.max_steps itself (two.yaml:14); "
        "use --stages.second.run.trainer.max_steps",
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("stages:", "stage:"), "two.yaml:4: 'stage' is not a section of a pipeline; did you mean 'stages'?"),
        (("title: Two", "titel: Two"), "two.yaml:1: about.titel is not known; did you mean 'title'?"),
        (("first:", "First-one:"), "two.yaml:5: 'First-one': a stage's name is made of a-z"),
        (("name: fit", "name: fot"), "two.yaml:10: stages.second: no stage is called 'fot'; did you mean 'fit'?"),
        (("name: fit", "name: dpo"), "two.yaml:10: stages.second: no stage is called 'dpo'; 'dpo' is a loss"),
        (("    name: fit\n", ""), "stages.second has no name; say which kind of stage it is, such as `name: fit`"),
        (("    spec: dpo\n", ""), "two.yaml:10: 'fit' needs stages.second.spec: text (Name or file of the spec.)"),
        (("tau: 30.0", "tau: -1"), "two.yaml:8: stages.first.tau: expected a number > 0 or none, found -1"),
        (("rule: absolute", "rule: absolut"), "two.yaml:7: stages.first.rule: expected 'absolute' or "),
        (("tau: 30.0", "tauu: 30.0"), "two.yaml:8: stages.first.tauu is not an option of 'perplexity_filter'; did you"),
        (("@first", "@frist"), "two.yaml:13: @frist/train: there is no stage 'frist'; did you mean 'first'?"),
        (
            ("/train", "/tran"),
            "two.yaml:13: @first/tran: the stage 'first' has no output 'tran'; did you mean",
        ),
        (("@first", "@second"), "two.yaml:13: @second/train: the stage 'second' does not come before 'second'"),
        (("      data:", "      date:"), "two.yaml:13: stages.second.run.date is not a section that a stage may have"),
        (
            ("spec: {kl", "run_dir: {kl"),
            "two.yaml:15: stages.second.run.run_dir is not a section",
        ),
        (("spec: {kl: {beta: 0.3}}", "spec: ipo"), "two.yaml:15: stages.second.run.spec takes settings on top of"),
        (("{kl: ", "{kll: "), "two.yaml:15: 'kll' is not a section of a spec; did you mean 'kl'?"),
        (("  trainer: {max_epochs", "  trainr: {max_epochs"), "two.yaml:3: 'trainr' is not a section of a run file"),
        (("spec: dpo", "spec: dpo\n    spec: ipo"), "two.yaml:12: 'spec' is given twice (first on line 11)"),
    ],
)
def test_mistakes_are_named_with_their_line(two, tmp_path, change, said):
    (tmp_path / two).write_text(TWO.replace(*change))
    assert said in refused(two)


def test_every_mistake_is_named_at_once(two, tmp_path):
    (tmp_path / two).write_text(TWO.replace("tau:", "tu:").replace("spec: dpo", "sped: dpo"))
    lines = refused(two).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["two.yaml:8", "two.yaml:11", "two.yaml:10"]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (["--stages.secnd.spec", "ipo"], "--stages.secnd.spec: there is no stage 'secnd'; did you mean 'second'?"),
        (["--stages.first.tau"], "--stages.first.tau needs a value"),
        (["--stages.first", "1"], "--stages.first: which setting of which stage?"),
        (["--stages.first.tau", "x"], "--stages.first.tau: expected a number > 0 or none, found 'x'"),
        (["--stages.second.run.spec.kl.", "1"], "which setting of which stage?"),
        (["--stages.second.run.data.train", "@frst/train"], "--stages.second.run.data.train: @frst/train: there is no"),
    ],
)
def test_mistakes_of_the_command_line(two, own, said):
    assert said in refused(two, own=own)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spec: dpo\n", "a pipeline's stages name their specs"),
        ("ckpt_path: last\n", "run.yaml:1: ckpt_path is not read by a pipeline"),
        ("stages: {third: {spec: dpo}}\n", "run.yaml:1: there is no stage 'third'"),
        ("stages: 3\n", "run.yaml:1: stages takes a mapping, found 3"),
        ("polcy: {path: x}\n", "run.yaml:1: 'polcy' is not a section of a run file; did you mean 'policy'?"),
        ("", "run.yaml: is empty"),
    ],
)
def test_mistakes_of_a_run_file(two, tmp_path, text, said):
    (tmp_path / "run.yaml").write_text(text)
    assert said in refused(two, ["run.yaml"])


def test_a_spec_is_no_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text("loss: dpo\n")
    assert "spec.yaml: this is a spec, not a pipeline" in refused("spec.yaml")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("rule: own_quantile", "rule: own_quantile does not read tau, but q; set tau to none"),
        ("length_buckets: [4, 8]", "length_buckets: rule absolute has the same limits for all lengths"),
        ("length_buckets: [8, 4]", "length_buckets: [8, 4]; give rising lengths"),
        ("q: 0.5", "rule: absolute does not read q, but tau; set q to none"),
    ],
)
def test_settings_of_the_filter_that_fit_no_rule(two, tmp_path, setting, said):
    text = TWO.replace("    rule: absolute\n", "") if setting.startswith("rule") else TWO
    (tmp_path / two).write_text(text.replace("    tau: 30.0", f"    tau: 30.0\n    {setting}"))
    with pytest.raises(InputError) as caught:
        check_stages(load_pipeline(two, [], ["--policy.path", "m", "--data.train", "t.jsonl"]))
    assert f"stages.first: 'perplexity_filter': {said}" in str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_pipelines_load(name):
    pipeline = load_pipeline(name)
    assert pipeline.about["paper"].startswith("arXiv:")
    assert pipeline.name == name


def test_the_pipeline_of_the_guide_loads(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "pipelines.md").read_text()
    text = page.partition('```yaml title="mine.yaml"\n')[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    own = ["--stages.filter.tau", "30", "--stages.dpo.run.spec.kl.beta", "0.1"]
    first, second = load_pipeline("mine.yaml", ["demo"], [], own).stages
    assert first.component.args["tau"] == 30.0
    assert sections(second.runs)["data"]["train"] == "@filter/train"


def test_a_stage_of_a_class_path(tmp_path, monkeypatch):
    """Third parties bring stages of their own; their outputs can be referred to."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("my_stages.py").write_text(
        "from nashtune.interfaces import Outcome, Planned, Stage\n\n\n"
        "class Copy(Stage):\n"
        "    outputs = ('rows',)\n\n"
        "    def __init__(self, *, text: str) -> None:\n"
        "        self.text = text\n\n"
        "    def check(self, runs):\n"
        "        return Planned(settings={'text': self.text})\n\n"
        "    def run(self, runs, work):\n"
        "        path = work.folder / 'rows.jsonl'\n"
        "        path.write_text(self.text)\n"
        "        return Outcome(outputs={'rows': path}, summary='copied')\n"
    )
    Path("two.yaml").write_text(
        "stages:\n  a: {name: my_stages.Copy, text: hello}\n  b: {name: my_stages.Copy, text: '@a/rows'}\n"
    )
    from nashtune.cli.main import main

    assert main(["run", "two.yaml", "--run_dir", "out", "--allow-import", "my_stages"]) == 0
    assert Path("out/b/rows.jsonl").read_text() == "out/a/rows.jsonl"
    with granted(["my_stages"]):
        assert "has no output 'row'" in refused("two.yaml", own=["--stages.b.text", "@a/row"])

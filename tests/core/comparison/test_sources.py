"""A name stays while its content changes: models that are trained anew between two parts of a comparison."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from nashtune.cli.main import main
from nashtune.comparison.folder import SAVED, claim, refuse_changed
from nashtune.comparison.sources import content_digest, judge_digest, rows_digest, sources
from nashtune.errors import InputError
from nashtune.pipeline import fit_command


def copied(model: Path, place: Path) -> Path:
    """A model in a folder of its own, to be changed."""
    return Path(shutil.copytree(model, place))


def altered(folder: Path) -> None:
    """The same model after one more training step, or so."""
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1.0}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("what", ["weights", "tokenizer", "config"])
def test_another_starting_policy_is_refused(ask, pit, tiny, what):
    """The folder has the same name, and other content."""
    base = copied(tiny, pit.folder / "base")
    first = ask("dpo", "--policy.path", "base")
    claim(pit.folder / "kept", first)
    refuse_changed(pit.folder / "kept", first)
    if what == "weights":
        altered(base)
    else:
        file = base / {"tokenizer": "tokenizer_config.json", "config": "config.json"}[what]
        file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError, match=r"holds another comparison: sources\.policy\.path: .* there, .* here"):
        claim(pit.folder / "kept", ask("dpo", "--policy.path", "base"))
    with pytest.raises(InputError, match=r"changed while the comparison was at work: sources\.policy\.path"):
        refuse_changed(pit.folder / "kept", first)


def test_models_of_specs_and_judge_are_looked_at(ask, pit, tiny):
    """References that are checkpoints, oracles that train, the judge; a model inside of a list, too."""
    for name in ("frozen", "trains", "judges"):
        copied(tiny, pit.folder / name)
    (pit.folder / "far.yaml").write_text(
        "base: online_dpo\noracle: {name: preference_model, path: trains}\n"
        "references: {ref: {name: checkpoint, path: frozen}}\n"
    )
    run = yaml.safe_load(pit.run_file.read_text())
    del run["spec"]["oracle"]
    pit.run_file.write_text(yaml.safe_dump(run))
    request = ask("far.yaml", "--judge", "raters", "--judge.raters", "[length, reward_model:judges]")
    found = sources(request)
    names = {"specs.far.references.ref.path", "specs.far.oracle.path", "judge.raters.1"}
    assert names <= found.keys()
    assert request.judge.args["raters"][1] == f"reward_model:{pit.folder / 'judges'}"
    before = judge_digest(request, found)
    for name, folder in (("frozen", "references.ref"), ("trains", "oracle")):
        altered(pit.folder / name)
        now = sources(request)
        assert {key for key in found if now[key] != found[key]} == {f"specs.far.{folder}.path"}
        assert judge_digest(request, now) == before
        found = now
    altered(pit.folder / "judges")
    assert judge_digest(request, sources(request)) != before


def test_a_comparison_without_a_note_of_its_weights_goes_on(ask, pit):
    claim(pit.folder / "kept", ask("dpo"))
    saved = pit.folder / "kept" / SAVED
    data = yaml.safe_load(saved.read_text())
    del data["sources"]["policy.path"]
    saved.write_text(yaml.safe_dump(data))
    (said,) = claim(pit.folder / "kept", ask("dpo"))
    assert said == "begun without a note of what was in policy.path: whether it is the same is not known"
    assert claim(pit.folder / "kept", ask("dpo")) == []


def test_a_start_that_changes_between_two_trainings(pit, same_process, tiny, monkeypatch, refused):
    """The second training would begin elsewhere, and `start` would be what only one of them began with."""
    base = copied(tiny, pit.folder / "base")
    command = ["compare", "dpo", "ipo", "--config", "run.yaml", "--policy.path", "base", "--steps", "1"]
    command += ["--run_dir", "out", "--prompts", "2"]
    train, calls = fit_command.call, []

    def then_alter(arguments, work):
        calls.append(arguments)
        train(arguments, work)
        if len(calls) == 1:
            altered(base)

    monkeypatch.setattr(fit_command, "call", then_alter)
    assert "changed while the comparison was at work: sources.policy.path" in refused(*command)
    assert "out holds another comparison: sources.policy.path" in refused(*command)
    assert "sources.policy.path" in refused("compare", "--run_dir", "out")
    assert len(calls) == 1
    shutil.rmtree(base)
    copied(tiny, base)
    assert main(command) == 0
    assert len(calls) == 2


def test_a_start_that_changes_after_the_trainings(pit, same_process, tiny, monkeypatch, refused):
    base = copied(tiny, pit.folder / "base")
    train = fit_command.call

    def then_alter(arguments, work):
        train(arguments, work)
        altered(base)

    monkeypatch.setattr(fit_command, "call", then_alter)
    command = ["compare", "dpo", "--config", "run.yaml", "--policy.path", "base", "--steps", "1", "--prompts", "2"]
    assert "changed while the comparison was at work: sources.policy.path" in refused(*command, "--run_dir", "out")
    assert not Path("out/journal/answers/start").exists()


def test_recorded_completions_are_rows(tmp_path):
    """A file, a run's journal, or a data set by name, which trainings look at."""
    file = tmp_path / "drawn.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n')
    journal = tmp_path / "run" / "journal" / "round-1"
    journal.mkdir(parents=True)
    (journal / "completions.parquet").write_bytes(b"one")
    before = [rows_digest(str(file)), rows_digest(str(tmp_path / "run"))]
    file.write_text('{"prompt": "a", "completion": "c"}\n')
    (journal / "completions.parquet").write_bytes(b"two")
    after = [rows_digest(str(file)), rows_digest(str(tmp_path / "run"))]
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert rows_digest("hub:owner/rows") == "hub:owner/rows"


def test_the_models_of_an_ensemble_are_all_looked_at(tmp_path, tiny):
    folder = tmp_path / "members"
    for name in ("a", "b"):
        copied(tiny, folder / name)
    before = content_digest(str(folder), "oracle.path")
    altered(folder / "b")
    assert content_digest(str(folder), "oracle.path") != before

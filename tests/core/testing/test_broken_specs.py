"""A spec is broken in one way at a time, and the check says which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nashtune.spec.locate import find_spec
from nashtune.spec.resolve import resolve
from nashtune.testing import check_spec, specs
from nashtune.trust import granted


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of dpo with its vectors, under another name."""
    source = Path(str(find_spec("dpo")))
    (tmp_path / "vectors").mkdir()
    shutil.copy(source, tmp_path / "mine.yaml")
    shutil.copy(source.parent / "vectors" / "dpo.json", tmp_path / "vectors" / "mine.json")
    return tmp_path / "mine.yaml"


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def refused(breaks):
    def expected(own: Path, rule: str, *settings: str) -> str:
        with breaks(rule) as found:
            check_spec(str(own), own.parent / "runs", *settings)
        return str(found.value)

    return expected


def test_what_does_not_resolve(own, refused):
    change(own, "label_smoothing", "label_smooting")
    assert "mine.yaml" in refused(own, "spec-resolves")


def test_what_has_no_vectors(own, refused):
    (own.parent / "vectors" / "mine.json").unlink()
    assert "there is no" in refused(own, "spec-vectors")


def test_vectors_of_the_base_hold_where_the_loss_is_its_own(own, refused):
    file = own.parent / "vectors" / "mine.json"
    on_it = own.parent / "child.yaml"
    on_it.write_text("base: ./mine.yaml\nkl: {name: fixed, beta: 0.7}\n")
    specs.check_vectors(resolve(str(on_it)), "spec 'child'")
    file.write_text(file.read_text().replace('"loss": [0.', '"loss": [1.', 1))
    assert "off by" in refused(on_it, "spec-vectors")
    on_it.write_text("base: ./mine.yaml\nloss: {label_smoothing: 0.2}\n")
    assert "child.json, and the loss is not the one of its base 'mine'" in refused(on_it, "spec-vectors")


def test_vectors_without_a_gradient(own, refused):
    file = own.parent / "vectors" / "mine.json"
    data = json.loads(file.read_text())
    data["cases"][0]["expected"] = {"loss": data["cases"][0]["expected"]["loss"]}
    file.write_text(json.dumps(data))
    assert "case 1 (four pairs) expects no gradient" in refused(own, "spec-vectors")


def test_vectors_that_fail(own, refused):
    file = own.parent / "vectors" / "mine.json"
    data = json.loads(file.read_text())
    data["cases"][1]["expected"]["loss"][0] += 1e-3
    file.write_text(json.dumps(data))
    assert "case 2 (label smoothing): off by 1.000e-03" in refused(own, "spec-vectors")


@pytest.mark.loads
def test_a_run_that_is_refused(own, lightning_log, refused):
    assert "training two steps" in refused(own, "spec-trains", "--data.batch_size", "0")


@pytest.mark.loads
def test_weights_that_stay(own, lightning_log, refused):
    """An optimiser that is told to do nothing."""
    refused(own, "spec-moves", "--spec.optimizer.lr", "1e-30")


@pytest.mark.loads
def test_a_resume_that_comes_to_something_else(own, lightning_log, monkeypatch, refused):
    """The weights of step 2 are read three times: of the run twice, and of the resumed one."""
    read = specs._weights

    def other(run, step, who):
        found = dict(read(run, step, who))
        if (run / "checkpoints" / "left-step=2.ckpt").exists():
            name = next(iter(found))
            found[name] = found[name] + 1e-6
        return found

    monkeypatch.setattr(specs, "_weights", other)
    assert "weights differ" in refused(own, "spec-resumes")


@pytest.mark.loads
def test_losses_that_are_no_numbers(own, lightning_log, monkeypatch, refused):
    import nashtune_plugins.dpo as dpo

    monkeypatch.setattr(dpo, "logsigmoid", lambda x: x / 0.0)
    monkeypatch.setattr(specs, "check_vectors", lambda spec, who: None)
    assert "not finite" in refused(own, "spec-trains")


NO_VERDICT = """
import torch
from nashtune.interfaces import PreferenceOracle

class Never(PreferenceOracle):
    def compare(self, prompts, first, second):
        return torch.full((len(first),), float("nan"), dtype=torch.float64)
"""


@pytest.mark.loads
def test_an_oracle_that_makes_no_pair_is_named_and_what_to_do(tmp_path, refused, lightning_log, monkeypatch):
    (tmp_path / "no_verdict.py").write_text(NO_VERDICT)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = tmp_path / "silent.yaml"
    own.write_text("base: inpo\noracle: {name: no_verdict.Never}\n")
    with granted(["no_verdict"]):
        said = refused(own, "spec-trains")
    assert "the oracle's 36 comparisons made no pair (unparsed: 36)" in said
    assert f"check_spec(name, folder, {', '.join(map(repr, specs.RULES_ORACLE))})" in said


RUNNING = """
from nashtune_plugins.dpo import DPOLoss

class Keeps(DPOLoss):
    '''DPO whose scale moves with the mean margin, so that another state is another step.'''
    mean = 0.0

    def __call__(self, batch, step):
        output = super().__call__(batch, step)
        return type(output)(**{**vars(output), 'values': output.values * (1.0 + self.mean)})

    def observe(self, means):
        self.mean += 1.0 + abs(float(means['loss']))

    def state_dict(self):
        return {'mean': self.mean}

    def load_state_dict(self, state):
        self.mean = state['mean']

class Forgets(Keeps):
    '''Starts anew after a resume.'''
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""


@pytest.mark.loads
def test_the_state_of_a_loss_is_in_the_checkpoint(own, refused, lightning_log, monkeypatch):
    """The loss is told of the step, and the resumed run goes on with what it then knew."""
    (own.parent / "running_loss.py").write_text(RUNNING)
    monkeypatch.syspath_prepend(str(own.parent))
    with granted(["running_loss"]):
        check_spec(str(own), own.parent / "kept", "--spec.loss", "running_loss.Keeps")
        assert "weights differ" in refused(own, "spec-resumes", "--spec.loss", "running_loss.Forgets")

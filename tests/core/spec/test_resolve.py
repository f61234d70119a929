from __future__ import annotations

from pathlib import Path

import pytest

from nashtune.errors import InputError
from nashtune.spec.findings import Findings
from nashtune.spec.locate import list_specs
from nashtune.spec.model import OptimizerSpec
from nashtune.spec.resolve import build, outline, resolve

DPO = {"loss": "dpo", "kl": {"name": "fixed", "beta": 0.1}, "references": {"ref": "base"}}


@pytest.mark.parametrize("name", sorted(listed.name for listed in list_specs()))
def test_every_spec_resolves_and_its_plain_form_resolves_to_the_same(name):
    spec = resolve(name)
    assert spec.name == name
    assert resolve(spec.to_dict()) == spec
    assert resolve(spec.to_dict()).to_dict() == spec.to_dict()


def test_a_plain_form_is_plain(write):
    import json

    plain = resolve(write()).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["loss"] == {"name": "dpo", "label_smoothing": 0.0}
    assert plain["kl"] == {"name": "fixed", "beta": 0.1}
    assert plain["references"] == {"ref": {"name": "base"}}
    assert plain["schedule"] == {"name": "offline"}
    assert plain["oracle"] == plain["sampler"] == plain["pairing"] == "none"
    assert plain["name"] == "mine"


def test_defaults_are_filled_in_and_origins_known(write):
    spec = resolve(write())
    assert spec.loss.args == {"label_smoothing": 0.0}
    assert spec.loss.target == "nashtune_plugins.dpo:DPOLoss"
    assert spec.loss.origin is not None
    assert spec.kl is not None and spec.kl.origin is not None
    assert spec.kl.origin.plugin == "nashtune"
    assert spec.optimizer == OptimizerSpec()


def test_every_value_knows_where_it_was_given(write):
    spec = resolve(write())
    assert spec.places["kl", "beta"] == "mine.yaml:2"
    assert spec.places["references", "ref", "name"] == "mine.yaml:3"
    assert ("loss", "label_smoothing") not in spec.places


def test_a_spec_may_be_given_as_path_name_or_mapping(write):
    by_path = resolve(Path(write()))
    assert by_path == resolve("mine.yaml")
    assert resolve({**DPO, "name": "mine"}) == by_path


def test_a_number_without_a_point_and_one_with_an_exponent(write):
    spec = resolve(write("loss: dpo\nkl: {name: fixed, beta: 1}\nreferences: {ref: base}\noptimizer: {lr: 1e-5}"))
    assert spec.kl is not None
    assert isinstance(spec.kl.args["beta"], float)
    assert spec.optimizer.lr == 1e-5


def test_a_class_path_in_either_form(write):
    for path in ("nashtune_plugins.dpo.DPOLoss", "nashtune_plugins.dpo:DPOLoss"):
        spec = resolve({**DPO, "loss": {"name": path, "label_smoothing": 0.2}})
        assert spec.loss.target == "nashtune_plugins.dpo:DPOLoss"
        assert spec.loss.origin is None
        assert spec.loss.args == {"label_smoothing": 0.2}
        assert resolve(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss: dpoo", "mine.yaml:1: loss: no loss is called 'dpoo'; did you mean 'dpo'?"),
        ("los: dpo", "mine.yaml:1: 'los' is not a section of a spec; did you mean 'loss'?"),
        ("loss: fixed", "mine.yaml:1: loss: no loss is called 'fixed'; 'fixed' is a kl"),
        ("kl: none", "mine.yaml: every spec needs a loss; add `loss: NAME`"),
        ("loss: none", "mine.yaml:1: every spec needs a loss"),
        ("loss:", "mine.yaml:1: loss is empty"),
        ("loss: {}", "mine.yaml:1: loss is empty"),
        ("loss: 5", "mine.yaml:1: loss takes a component's name or {name: ..., option: value}, found 5"),
        ("loss: dpo\nkl: 0.1", "found 0.1; a number is the value of one of its options: kl.beta"),
        ("loss: [dpo]", "found ['dpo']"),
        ("loss: {label_smoothing: 0.1}", "mine.yaml:1: loss.label_smoothing is set, but loss has no name"),
        ("loss: dpo\nreferences: base", "mine.yaml:2: references takes a mapping such as {ref: base}, or none"),
        ("loss: dpo\nreferences: {ref: 3}", "mine.yaml:2: references.ref takes a component's name"),
        ("loss: dpo\nreferences: {ref: bse}", "references.ref: no reference is called 'bse'; did you mean 'base'?"),
        ("loss: dpo\nschedule: none", "mine.yaml:2: every spec needs a schedule"),
        ("loss: dpo\nkl: {name: none, beta: 1}", "mine.yaml:2: kl.beta is set, but kl is none"),
        ("loss: dpo\noptimizer: adamw", "mine.yaml:2: optimizer takes a mapping, found 'adamw'"),
        ("loss: dpo\noptimizer: {lrr: 1}", "optimizer.lrr is not an option of optimizer; did you mean 'lr'?"),
        ("loss: dpo\noptimizer: {lr: 0}", "mine.yaml:2: optimizer.lr: expected a number > 0, found 0"),
        (
            "loss: dpo\noptimizer: {name: adam}",
            "'adamw' or 'adamw_8bit' or 'rmsprop', found 'adam'; did you mean 'adamw'?",
        ),
        ("loss: dpo\noptimizer: {betas: [0.9]}", "optimizer.betas: expected a list of 2"),
        ("loss: dpo\noptimizer: {betas: [0.9, 1]}", "optimizer.betas: expected two numbers >= 0 and < 1"),
        ("loss: dpo\noptimizer: {name: rmsprop, betas: [0.9, 0.9]}", "optimizer.betas is not read by rmsprop"),
        ("loss: dpo\nabout: {titel: x}", "mine.yaml:2: about.titel is not known; did you mean 'title'?"),
        ("loss: dpo\nabout: {title: 5}", "mine.yaml:2: about.title: expected text, found 5"),
        ("loss: dpo\nabout: {kind: ofline}", "about.kind: expected 'offline' or"),
        ("loss: dpo\nabout: text", "mine.yaml:2: about takes a mapping, found 'text'"),
        ("loss: dpo\nname: other", "mine.yaml:2: a spec's name is the name of its file"),
        ("- loss", "mine.yaml:1: a spec is a mapping of sections"),
        ("", "mine.yaml: is empty"),
        ("loss: dpo\nloss: ipo", "mine.yaml:2: 'loss' is given twice (first on line 1)"),
        ("loss: dpo\nkl: {name: fixed}", "mine.yaml:2: 'fixed' needs kl.beta: a number > 0"),
        (
            "loss: dpo\nkl:\n  name: fixed\n  bta: 1",
            "mine.yaml:4: kl.bta is not an option of 'fixed'; did you mean 'beta'?",
        ),
        ("loss: dpo\nkl:\n  name: fixed\n  beta: abc", "mine.yaml:4: kl.beta: expected a number > 0, found 'abc'"),
        ("loss: dpo\nkl:\n  name: fixed\n  beta: -1", "mine.yaml:4: kl.beta: expected a number > 0, found -1"),
        ("loss: dpo\nkl: {name: fixed, beta: {a: 1}}", "kl.beta: expected a number > 0, found a mapping"),
        ("loss: nowhere.at.All", "mine.yaml:1: loss: nowhere.at:All: there is no module nowhere.at"),
        ("loss: nashtune_plugins.dpo.DPOLos", "did you mean 'DPOLoss'?"),
        (
            "loss: nashtune.kl.fixed.FixedKL",
            "kl.fixed.FixedKL is not a loss: it must be a subclass of nashtune.interfaces",
        ),
        ("loss: ../x.py", "is not the place of a class"),
    ],
)
def test_what_is_refused(wrong, text, said):
    assert any(said in line for line in wrong(text))


def test_everything_that_is_wrong_is_said_at_once(wrong):
    lines = wrong(
        """\
        loss: {name: dpo, label: 1, label_smoothing: x}
        kl: {name: fixd}
        optimizer: {lr: fast}
        """
    )
    assert len(lines) == 4
    assert [line.split(":")[1] for line in sorted(lines)] == ["1", "1", "2", "3"]


def test_findings_are_one_error_with_its_lines(write):
    with pytest.raises(Findings) as caught:
        resolve(write("loss: {name: dpo, a: 1, b: 2}\nkl: {name: fixed, beta: 1}\nreferences: {ref: base}"))
    assert len(caught.value.lines) == 2


def test_a_saved_config_may_stand_for_its_spec(write):
    spec = resolve("dpo")
    import yaml

    name = write(yaml.safe_dump({"seed_everything": 1, "spec": spec.to_dict()}, allow_unicode=True), "config.yaml")
    assert resolve(name) == spec
    assert resolve(write("spec: dpo\npolicy: {path: x}", "run.yaml")) == spec


def test_a_run_file_without_a_whole_spec_is_pointed_to_its_option(wrong):
    (line,) = wrong("spec: {kl: {beta: 1}}\npolicy: {path: x}")
    assert "this is a run file and holds no whole spec; give it with --config" in line


def test_the_outline_reads_names_and_nothing_else(write):
    read = outline(write("about: {title: T, paper: P}\nloss: unknown_here\nkl: none"))
    assert read == {"title": "T", "paper": "P", "kind": "", "loss": "unknown_here", "kl": "none"}


def test_build_constructs_the_component(write):
    spec = resolve(write())
    assert spec.kl is not None
    built = build(spec.kl)
    assert type(built).__name__ == "FixedKL"
    assert vars(built) == {"value": 0.1}


def test_what_a_constructor_refuses_is_the_users_to_put_right(tmp_path, monkeypatch):
    (tmp_path / "refusing_loss.py").write_text(
        "from nashtune.interfaces import Loss\n"
        "class Refusing(Loss):\n"
        "    def __init__(self, *, tau: float = 0.0) -> None:\n"
        "        raise ValueError(f'tau is {tau}; it must not be 0')\n"
        "    def __call__(self, batch, step): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = resolve({**DPO, "loss": "refusing_loss.Refusing"})
    with pytest.raises(InputError, match=r"loss 'refusing_loss.Refusing': tau is 0.0; it must not be 0"):
        build(spec.loss)


def test_a_class_that_lacks_a_method_is_refused(tmp_path, monkeypatch):
    (tmp_path / "half_a_loss.py").write_text("from nashtune.interfaces import Loss\nclass Half(Loss):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"does not implement __call__, which a loss must \(.*half_a_loss.py:2\)$"):
        resolve({**DPO, "loss": "half_a_loss.Half"})


def test_a_module_of_the_current_folder_is_not_found_without_saying_where_it_lies(wrong, write):
    write("class Mine: ...\n", "lies_in_this_folder.py")
    (line,) = wrong("loss: lies_in_this_folder.Mine")
    assert "there is no module lies_in_this_folder. lies_in_this_folder lies in the current folder" in line
    assert "write PYTHONPATH=. in front of it" in line

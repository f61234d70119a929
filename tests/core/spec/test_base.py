from __future__ import annotations

import pytest

from nashtune.spec.resolve import resolve

PARENT = """\
    about: {title: Parent, paper: P}
    loss: {name: dpo, label_smoothing: 0.1}
    kl:
      name: fixed
      beta: 0.3
    references: {ref: base}
    optimizer: {lr: 1e-6, decay: cosine}
"""


@pytest.fixture
def child(write):
    write(PARENT, "parent.yaml")
    return lambda text: resolve(write(f"base: ./parent.yaml\n{text}", "child.yaml"))


def test_a_child_changes_one_value_and_keeps_the_rest(child):
    spec = child("kl: {beta: 0.5}\nabout: {title: Child}")
    assert spec.name == "child"
    assert spec.kl.to_dict() == {"name": "fixed", "beta": 0.5}
    assert spec.loss.args == {"label_smoothing": 0.1}
    assert spec.about == {"title": "Child", "paper": "P"}
    assert spec.optimizer.lr == 1e-6


def test_values_know_which_file_they_come_from(child):
    spec = child("kl: {beta: 0.5}")
    assert spec.places["kl", "beta"] == "child.yaml:2"
    assert spec.places["kl", "name"] == "parent.yaml:4"


def test_another_component_drops_the_options_of_the_old_one(child):
    spec = child("loss: {name: ipo, tau: 0.2, reduction: sum}\nkl: none")
    assert spec.loss.to_dict() == {"name": "ipo", "tau": 0.2, "reduction": "sum"}
    assert spec.kl is None


def test_the_same_component_again_keeps_its_options(child):
    assert child("loss: dpo").loss.args == {"label_smoothing": 0.1}


def test_references_are_changed_by_name_and_taken_away_by_none(child):
    assert child("references: {ref: adapter_off}").references["ref"].name == "adapter_off"
    spec = child("loss: {name: simpo, beta: 2.0, gamma_beta_ratio: 0.5}\nkl: none\nreferences: none")
    assert spec.references == {}
    spec = child("loss: {name: simpo, beta: 2.0, gamma_beta_ratio: 0.5}\nkl: none\nreferences: {ref: none}")
    assert spec.references == {}


def test_a_base_by_name(write):
    spec = resolve(write("base: dpo\nkl: {beta: 0.7}"))
    assert spec.kl is not None
    assert spec.kl.args["beta"] == 0.7


def test_a_path_is_meant_from_where_the_file_lies(write):
    write(PARENT, "papers/parent.yaml")
    assert resolve(write("base: parent.yaml\nkl: {beta: 0.5}", "papers/child.yaml")).loss.args["label_smoothing"] == 0.1


def test_a_base_of_a_base_is_refused(write, wrong):
    write(PARENT, "grand.yaml")
    write("base: ./grand.yaml", "parent.yaml")
    (line,) = wrong("base: ./parent.yaml")
    assert "mine.yaml:1: base './parent.yaml' has a base itself (parent.yaml:1); only one level is allowed" in line


def test_a_spec_that_is_its_own_base_is_refused(wrong):
    assert "only one level is allowed" in wrong("base: ./mine.yaml")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: dpoo", "mine.yaml:1: base: no spec is called 'dpoo'; did you mean"),
        ("base: ./nowhere.yaml", "mine.yaml:1: base: nowhere.yaml: no such file"),
        ("base: [dpo]", "mine.yaml:1: base takes the name or path of one spec"),
        ("base: dpo\nkl: {bta: 1}", "mine.yaml:2: kl.bta is not an option of 'fixed'; did you mean 'beta'?"),
        ("base: dpo\nkl: {}", "mine.yaml:2: kl is empty"),
    ],
)
def test_what_is_refused(wrong, text, said):
    assert said in wrong(text)[0]


def test_an_error_in_the_base_names_the_base(write, wrong):
    write(PARENT.replace("0.3", "abc"), "parent.yaml")
    assert wrong("base: ./parent.yaml\nloss: dpo") == ["parent.yaml:5: kl.beta: expected a number > 0, found 'abc'"]

from __future__ import annotations

import pytest

from nashtune.errors import InputError
from nashtune.spec.overrides import Override, take_overrides
from nashtune.spec.resolve import resolve
from nashtune.spec.types import Typed


def trained(write, *argv, text=None):
    overrides, rest = take_overrides(argv)
    assert rest == []
    return resolve(write() if text is None else write(text), overrides)


def test_a_value_is_typed_by_its_option(write):
    spec = trained(write, "--spec.kl.beta", "1e-2", "--spec.loss.label_smoothing=0")
    assert spec.kl.args == {"beta": 0.01}
    assert spec.loss.args == {"label_smoothing": 0.0}
    assert isinstance(spec.loss.args["label_smoothing"], float)
    assert spec.places["kl", "beta"] == "--spec.kl.beta"


def test_text_stays_as_it_was_typed(write):
    spec = trained(write, "--spec.references.ref", "checkpoint", "--spec.references.ref.path", "012")
    assert spec.references["ref"].args["path"] == "012"
    assert (
        trained(write, "--spec.references.ref", "checkpoint", "--spec.references.ref.path=5")
        .references["ref"]
        .args["path"]
        == "5"
    )


def test_another_component_drops_the_options_of_the_old_one(write):
    spec = trained(
        write, "--spec.loss", "ipo", "--spec.loss.tau", "0.7", "--spec.loss.reduction", "sum", "--spec.kl", "none"
    )
    assert spec.loss.to_dict() == {"name": "ipo", "tau": 0.7, "reduction": "sum"}
    assert spec.kl is None


def test_a_component_comes_before_its_options_in_any_order(write):
    spec = trained(write, "--spec.loss.tau", "0.7", "--spec.kl=none", "--spec.loss.reduction=sum", "--spec.loss=ipo")
    assert spec.loss.args == {"tau": 0.7, "reduction": "sum"}
    assert trained(write, "--spec.kl.beta", "2", "--spec.kl.name", "fixed").kl.args == {"beta": 2.0}


def test_the_same_component_again_keeps_its_options(write):
    assert trained(write, "--spec.kl", "fixed").kl.args == {"beta": 0.1}


def test_a_component_with_options_in_one_word(write):
    spec = trained(write, "--spec.loss", "{name: ipo, tau: 0.7, reduction: mean}", "--spec.kl", "none")
    assert spec.loss.args == {"tau": 0.7, "reduction": "mean"}
    assert spec.places["loss", "tau"] == "--spec.loss"


def test_a_later_setting_wins(write):
    assert trained(write, "--spec.kl.beta", "2", "--spec.kl.beta", "3").kl.args == {"beta": 3.0}


def test_settings_of_optimizer_and_about(write):
    spec = trained(write, "--spec.optimizer.lr=1e-6", "--spec.optimizer.betas", "[0.8, 0.9]", "--spec.about.title", "5")
    assert spec.optimizer.lr == 1e-6
    assert spec.optimizer.betas == (0.8, 0.9)
    assert spec.about == {"title": "5"}


def test_another_optimizer_drops_the_betas_it_does_not_read(write):
    text = "loss: dpo\nkl: {name: fixed, beta: 1}\nreferences: {ref: base}\noptimizer: {betas: [0.8, 0.9], lr: 1e-6}"
    spec = trained(write, "--spec.optimizer.name", "rmsprop", text=text)
    assert spec.optimizer.to_dict()["lr"] == 1e-6
    assert "betas" not in spec.optimizer.to_dict()


def test_what_is_not_ours_is_left_as_it_was():
    overrides, rest = take_overrides(["--spec", "dpo", "--trainer.max_steps", "5", "--spec.kl.beta", "-1", "x"])
    assert rest == ["--spec", "dpo", "--trainer.max_steps", "5", "x"]
    assert overrides == [Override(("kl", "beta"), Typed("-1", -1), "--spec.kl.beta")]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--spec.kl.beta"], "--spec.kl.beta needs a value"),
        (["--spec.kl.beta", "--trainer.max_steps"], "--spec.kl.beta needs a value"),
        (["--spec.lss.tau", "1"], "--spec.lss.tau: 'lss' is not a section of a spec; did you mean 'loss'?"),
        (["--spec.kl..beta", "1"], "--spec.kl..beta"),
        (
            ["--spec.beta", "1"],
            "references, sampler, schedule); an option stands behind its component, as in --spec.kl.beta",
        ),
        (["--spec.name", "x"], "'name' is not a section of a spec"),
        (["--spec.base", "x"], "'base' is not a section of a spec"),
    ],
)
def test_what_is_refused_at_once(argv, said):
    with pytest.raises(InputError) as caught:
        take_overrides(argv)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--spec.kl.bta", "1"], "--spec.kl.bta: kl.bta is not an option of 'fixed'; did you mean 'beta'?"),
        (["--spec.kl.beta", "x"], "--spec.kl.beta: expected a number > 0, found 'x'"),
        (["--spec.kl.beta", "[1,"], "--spec.kl.beta: expected a number > 0, found '[1,'"),
        (["--spec.kl.beta="], "--spec.kl.beta: expected a number > 0, found nothing"),
        (["--spec.kl", "fixd"], "--spec.kl: kl: no kl is called 'fixd'; did you mean 'fixed'?"),
        (["--spec.kl", "5"], "--spec.kl: kl takes a component's name"),
        (["--spec.kl.beta.x", "5"], "--spec.kl.beta.x: kl.beta.x lies too deep"),
        (["--spec.loss", "ipo"], "--spec.loss: 'ipo' needs loss.tau: a number > 0"),
        (["--spec.optimizer", "adamw"], "--spec.optimizer: optimizer takes --spec.optimizer.KEY"),
        (
            ["--spec.references.rf", "base"],
            "--spec.references.rf: no component reads the reference 'rf'; did you mean 'ref'?",
        ),
        (["--spec.references.aux.path", "x"], "references.aux has no name; name the component"),
    ],
)
def test_what_is_refused_in_its_spec(write, argv, said):
    with pytest.raises(InputError) as caught:
        trained(write, *argv)
    assert said in str(caught.value)

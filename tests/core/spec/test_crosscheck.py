"""What must hold between components; the classes of `parts` cannot be imported, so nothing here constructs anything."""

from __future__ import annotations

import sys

import pytest

from nashtune.errors import InputError
from nashtune.spec.resolve import resolve

KL = {"name": "fixed", "beta": 0.1}
BASE = {"ref": "base"}
IPO = {"name": "ipo", "tau": 0.1, "reduction": "sum"}
SIMPO = {"name": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.5}


def refused(**sections: object) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(sections)
    return str(caught.value).splitlines()


def test_a_loss_needs_its_reference():
    (line,) = refused(loss="dpo", kl=KL)
    assert "loss 'dpo' reads the reference 'ref', which is missing; add `references: {ref: base}`" in line


def test_a_reference_under_another_name_is_not_read():
    lines = refused(loss="dpo", kl=KL, references={"rf": "base"})
    assert "loss 'dpo' reads the reference 'ref', which is missing; did you mean 'rf'?" in lines[0]
    assert "no component reads the reference 'rf'; did you mean 'ref'?" in lines[1]


def test_a_reference_that_nothing_reads():
    (line,) = refused(loss=SIMPO, references=BASE)
    assert "no component reads the reference 'ref'; write `references: none`" in line


def test_a_loss_with_two_anchors(parts):
    loss = {"name": f"{parts}.TwoAnchors", "weight": 1.0}
    assert resolve({"loss": loss, "kl": KL, "references": {"ref": "base", "aux": "base"}}).references.keys() == {
        "ref",
        "aux",
    }
    (line,) = refused(loss=loss, kl=KL, references=BASE)
    assert "reads the reference 'aux', which is missing" in line


def test_a_loss_with_beta_needs_a_kl():
    (line,) = refused(loss="dpo", references=BASE)
    assert "the loss 'dpo' multiplies by beta, but there is no kl; add `kl: {name: fixed, beta: 0.1}`" in line


def test_a_kl_that_the_loss_does_not_read():
    (line,) = refused(loss=IPO, kl=KL, references=BASE)
    assert "the loss 'ipo' has no beta, so kl is not read; write `kl: none`" in line


def test_statistics_need_a_reference_with_logits(parts):
    kl = f"{parts}.Statistical"
    assert resolve({"loss": "dpo", "kl": kl, "references": BASE}).kl.name == kl
    (line,) = refused(loss="dpo", kl=kl, references={"ref": f"{parts}.Blind"})
    assert f"kl '{kl}' reads the logits of the reference 'ref', and '{parts}.Blind' gives none" in line
    (line,) = refused(loss="dpo", kl="epsilon_dpo_of_nobody", references=BASE)
    assert "no kl is called" in line


def test_cached_log_probs_are_no_reference_for_epsilon_dpo():
    kl = {"name": "epsilon_dpo", "beta": 0.1, "epsilon": 0.01}
    (line,) = refused(loss="dpo", kl=kl, references={"ref": "cached"})
    assert "kl 'epsilon_dpo' reads the logits of the reference 'ref', and 'cached' gives none" in line


def test_statistics_work_on_pairs(parts):
    (line,) = refused(loss=f"{parts}.Examples", kl=f"{parts}.Statistical", references=BASE)
    assert f"kl '{parts}.Statistical' works on pairs, and the loss '{parts}.Examples' trains on examples" in line


def test_a_controller_says_which_rows_it_works_on(parts):
    assert resolve({"loss": "dpo", "kl": f"{parts}.OfPairs", "references": BASE})
    (line,) = refused(loss="kto", kl=f"{parts}.OfPairs", references=BASE)
    assert f"kl '{parts}.OfPairs' works on pairs, and the loss 'kto' trains on examples; use a kl for examples" in line
    assert "(adaptive" not in line and "fixed" in line and "a loss on pairs (" in line and "ipo" not in line


def test_rows_that_do_not_exist_are_named_with_their_place(parts):
    (line,) = refused(loss="dpo", kl=f"{parts}.OfPears", references=BASE)
    assert "OfPears.rows is ('pears',)" in line and ".py:" in line
    assert "some of pairs, examples, rollouts, ranked, comparisons" in line


@pytest.mark.parametrize("section", ["oracle", "sampler", "pairing"])
def test_a_section_that_an_offline_schedule_does_not_read(section, parts):
    component = {"oracle": "vader", "sampler": f"{parts}.Mixture", "pairing": "best_worst"}[section]
    lines = refused(loss="dpo", kl=KL, references=BASE, **{section: component})
    assert any(f"{section} is not read by the schedule 'offline'; remove the section" in line for line in lines)
    assert any("--config takes several, and `nashtune compare` leaves out by itself" in line for line in lines)


def test_a_schedule_that_samples_needs_its_sections(parts):
    lines = refused(loss="dpo", kl=KL, references=BASE, schedule=f"{parts}.Game")
    assert [
        f"reads {section}, which is missing" in line
        for section, line in zip(("oracle", "sampler", "pairing"), lines, strict=True)
    ]
    assert "add `oracle: NAME`" in lines[0]


def test_a_sampler_may_be_who_reads_a_reference(parts):
    sections = {
        "loss": "dpo",
        "kl": KL,
        "references": {"ref": "base", "aux": "base"},
        "oracle": "vader",
        "sampler": f"{parts}.Mixture",
        "pairing": "best_worst",
        "schedule": {"name": f"{parts}.Game", "rounds": 2},
    }
    spec = resolve(sections)
    assert spec.schedule.args == {"rounds": 2}
    assert resolve(spec.to_dict()) == spec
    assert any("'aux', which is missing" in line for line in refused(**{**sections, "references": BASE}))


def test_none_of_it_imports_the_classes(parts):
    resolve(
        {"loss": {"name": f"{parts}.TwoAnchors", "weight": 1}, "kl": KL, "references": {"ref": "base", "aux": "base"}}
    )
    assert parts not in sys.modules

"""What a game's parts must offer one another; the classes of `parts` cannot be imported, so nothing is constructed."""

from __future__ import annotations

import sys

import pytest

from nashtune.errors import InputError
from nashtune.spec.gamerules import chosen, is_game
from nashtune.spec.resolve import resolve

KL = {"name": "fixed", "beta": 0.1}


@pytest.fixture
def game(parts):
    """A right game, with parts of it replaced: a name without a dot is a class of `parts`, None leaves a part out."""

    def game(loss=None, kl=KL, references=None, **changed):
        def full(name):
            return f"{parts}.{name}" if name[0].isupper() else name

        sections = {"schedule": "Game", "oracle": "Judge", "sampler": "Plain", "pairing": "Few", **changed}
        return {
            "loss": full(loss) if loss else "dpo",
            **({"kl": kl if isinstance(kl, dict) else full(kl)} if kl else {}),
            "references": {"ref": "base"} if references is None else {k: full(v) for k, v in references.items()},
            **{key: full(name) for key, name in sections.items() if name},
        }

    return game


def refused(sections: dict[str, object]) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(sections)
    return str(caught.value).splitlines()


def test_a_right_game(game, parts):
    spec = resolve(game())
    assert is_game(spec)
    assert not is_game(resolve("dpo"))
    assert parts not in sys.modules


def test_previous_needs_a_schedule_that_says_what_it_is(game):
    (line,) = refused(game(references={"ref": "previous"}))
    assert "spec: references.ref: 'previous' is what a schedule's rounds say, and the schedule" in line
    assert "use base, or a schedule that does (online, onpo)" in line
    (line,) = refused({"loss": "dpo", "kl": KL, "references": {"ref": "previous"}})
    assert "the schedule 'offline' says nothing of it" in line
    assert resolve(game(references={"ref": "previous"}, schedule="online"))


def test_a_game_has_no_rows_to_keep_log_probs_of(game):
    (line,) = refused(game(references={"ref": "Kept"}))
    assert "keeps log-probs of rows that are there before training, and a game makes its rows on the way" in line
    assert "'cached' keeps log-probs" in refused(game(references={"ref": "cached"}))[0]


def test_a_kl_on_logits_is_not_supported_with_rounds(game):
    (line,) = refused(game(kl="Statistical"))
    assert "a game scores 'base' once before each update; not supported with rounds, use fixed" in line
    assert resolve(game(kl="Statistical", references={"ref": "adapter_off"}))  # stays live
    assert resolve({"loss": "dpo", "kl": game(kl="Statistical")["kl"], "references": {"ref": "base"}})


def test_win_rates_need_a_pairing_that_gives_them(game):
    (line,) = refused(game(loss="WinRates", kl=None))
    assert "reads win rates, and the pairing" in line
    assert "gives none; use one that compares all completions (adjacent, all_pairs, best_worst)" in line
    assert resolve(game(loss="WinRates", kl=None, pairing="Every"))


def test_win_rates_are_not_in_a_data_set(game):
    loss = game(loss="WinRates")["loss"]
    (line,) = refused({"loss": loss, "references": {"ref": "base"}})
    assert "reads win rates, which only a game's pairing gives, and the schedule 'offline' reads no pairing" in line


@pytest.mark.parametrize(
    ("loss", "schedule", "pairing", "said"),
    [
        ("Rollouts", None, None, "the policy draws itself, and the schedule 'offline' draws none; add one that does"),
        ("Rollouts", "Game", "Few", "trains on single completions, and the schedule"),
        ("dpo", "Steps", None, "the loss 'dpo' trains on pairs, and the schedule"),
        ("Examples", "Game", "Few", "trains on labelled examples, and no schedule makes them"),
    ],
)
def test_a_schedule_makes_the_rows_that_the_loss_trains_on(game, loss, schedule, pairing, said):
    offline = schedule is None
    kl = None if loss == "Rollouts" else KL
    given = {"oracle": None, "sampler": None} if offline else {}
    (line,) = refused(game(loss=loss, kl=kl, schedule=schedule, pairing=pairing, **given))
    assert said in line
    assert line.startswith("spec: the loss")


def test_rollouts_with_a_schedule_that_makes_them(game):
    assert resolve(game(loss="Rollouts", kl=None, schedule="Steps", pairing=None))


def test_a_mixture_needs_a_sampler_that_mixes(game):
    (line,) = refused(game(loss="Mixed", kl=None))
    assert "draws from a mixture with the starting policy, and the sampler" in line
    assert "does not mix; use one that does (mixture)" in line
    assert resolve(game(loss="Mixed", kl=None, sampler="Mixer"))
    assert resolve(game(loss="Mixed", kl=None, sampler="Tape"))  # recorded from a mixture, perhaps


def test_choosing_among_completions_needs_an_oracle_that_scores(game):
    (line,) = refused(game(sampler="Best"))
    assert "chooses by the oracle's scores, and the oracle" in line
    assert "compares pairs; use an oracle that scores (" in line
    assert "vader" in line
    assert resolve(game(sampler="Best", oracle="Scorer"))
    assert resolve(game(sampler="Best", oracle="Open"))  # the run says which
    lines = refused(game(sampler="Best", oracle=None))
    assert any("there is no oracle; add one that scores (" in line for line in lines)


def test_a_replay_needs_no_oracle(game):
    assert resolve(game(sampler="Tape", oracle=None)).oracle is None
    (line,) = refused(game(oracle=None))
    assert "reads oracle, which is missing" in line
    (line,) = refused(game(sampler="Tape", oracle=None, pairing=None))
    assert "reads pairing, which is missing" in line


def test_an_oracle_may_be_left_to_the_run(game):
    spec = resolve(game(oracle="Open"))
    assert not chosen(spec.oracle)
    assert not chosen(None)
    assert chosen(resolve(game()).oracle)

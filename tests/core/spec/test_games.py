"""What only the objects of a game can say: its phases, and how many completions its pairing takes."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from nashtune.errors import InputError
from nashtune.spec.games import check_game, unanswered
from nashtune.spec.locate import list_specs
from nashtune.spec.resolve import outline, resolve

KL = {"name": "fixed", "beta": 0.1}
GAMES = sorted({listed.name for listed in list_specs() if outline(listed.name)["kind"] == "game"})
SCHEDULES = '''\
from __future__ import annotations

from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Round, Schedule, Snapshot, Update

DRAW = (Collect(policy=None), Judge(), Pair())


class Pairs(Schedule):
    """What a subclass says."""

    reads = ("oracle", "sampler", "pairing")
    phases = ()

    def rounds(self):
        return (Round(phases=self.phases),)


class Rollouts(Pairs):
    """Without pairing."""

    reads = ("oracle", "sampler")


class Lost(Pairs):
    """Forgets its snapshot."""

    phases = (*DRAW, Update(start="main@1"))


class Mixing(Pairs):
    """Draws from a mixture."""

    phases = (Collect(policy=None, reference_weight=0.5), Judge(), Pair(), Update())


class Opponent(Pairs):
    """Has an opponent and a pairing."""

    phases = (Collect(policy=None), Collect(policy="start", role="opponent"), Judge(), Pair(), Update())


class Alone(Rollouts):
    """Has neither."""

    phases = (*DRAW, Update())
'''


@pytest.fixture
def game(tmp_path, monkeypatch):
    """A game with a schedule of its own and any of its other parts replaced."""
    (tmp_path / "games_test_schedules.py").write_text(SCHEDULES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    def game(schedule="online", **changed):
        name = f"games_test_schedules.{schedule}" if schedule[0].isupper() else schedule
        sections = {"loss": "dpo", "kl": KL, "references": {"ref": "base"}, "oracle": "vader", "sampler": "policy"}
        return resolve({**sections, "pairing": "tournament", "schedule": name, **changed})

    return game


def refused(spec) -> list[str]:
    with pytest.raises(InputError) as caught:
        check_game(spec)
    return str(caught.value).splitlines()


def test_an_offline_spec_is_no_game():
    assert check_game(resolve("dpo")) is None
    assert unanswered(resolve("dpo")) is None


def test_what_a_game_declares(game):
    declared = check_game(game(schedule="online"))
    assert declared is not None
    assert len(declared.rounds) == 3
    assert declared.most is not None
    assert declared.most(8) == (11, 1)


def test_the_phases_are_checked_and_the_schedule_is_named(game):
    (line,) = refused(game(schedule="Lost"))
    assert line.startswith("spec: the schedule 'games_test_schedules.Lost': round 1, phase 4 (Update): there is no")


@pytest.mark.parametrize(
    ("pairing", "completions", "said"),
    [
        ("tournament", 6, "the pairing tournament needs a power of two, and 6 is none"),
        ("iid", 3, "3 is not an even number"),
        ("best_worst", 1, "1 completion per prompt makes no pair"),
    ],
)
def test_the_pairing_says_how_many_completions_it_takes(game, pairing, completions, said):
    (line,) = refused(game(pairing=pairing, sampler={"name": "policy", "completions": completions}))
    assert line.startswith("spec: sampler.completions: ")
    assert said in line


def test_the_place_of_the_number_of_completions_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        textwrap.dedent("""\
        loss: dpo
        kl: {name: fixed, beta: 0.1}
        references: {ref: base}
        oracle: vader
        sampler:
          name: policy
          completions: 6
        pairing: tournament
        schedule: online
        """)
    )
    (line,) = refused(resolve("./mine.yaml"))
    assert line.startswith("mine.yaml:7: sampler.completions: the pairing tournament needs a power of two")


def test_a_schedule_that_draws_from_a_mixture_needs_a_sampler_that_mixes(game):
    (line,) = refused(game(schedule="Mixing"))
    assert "the schedule 'games_test_schedules.Mixing' draws from a mixture" in line
    assert "the sampler 'policy' does not mix; use one that does (mixture)" in line
    assert check_game(game(schedule="Mixing", sampler="mixture"))


def test_an_opponent_and_a_pairing_exclude_each_other(game):
    (line,) = refused(game(schedule="Opponent"))
    assert "reads a pairing, which compares the policy's own completions, and draws an opponent's too" in line


def test_without_a_pairing_there_must_be_an_opponent(game):
    rollouts = {"loss": {"name": "nash_pg", "tau": 0.008}, "kl": "none", "pairing": "none"}
    (line,) = refused(game(schedule="Alone", **rollouts))
    assert "reads no pairing and draws no completions of an opponent, so that nothing can be compared" in line
    against = check_game(game(schedule="nash_pg", sampler={"name": "mixture", "completions": 1}, **rollouts))
    assert against is not None
    assert against.most is None


@pytest.mark.parametrize("name", GAMES)
def test_the_games_that_are_shipped_are_right(name):
    declared = check_game(resolve(name))
    assert declared is not None
    assert declared.rounds


def test_an_oracle_that_is_left_to_the_run_must_be_named_there(game):
    left = game(oracle="preference")
    assert check_game(left)
    assert unanswered(left) == (
        "spec: spec.oracle: which oracle? The spec leaves it to the run. Name one in the run file, or with "
        "--spec.oracle NAME, for example: --spec.oracle raters --spec.oracle.raters '[sentiment, brevity, distinct_2]'"
    )
    assert unanswered(game()) is None
    replay = {"name": "recorded", "path": "run"}
    assert unanswered(game(oracle="preference", sampler=replay)) is None  # the journal has the judgements
    assert unanswered(game(oracle="none", sampler=replay)) is None


def test_building_games_loads_no_torch():
    script = (
        "import sys\nfrom nashtune.spec.games import check_game\nfrom nashtune.spec.resolve import resolve\n"
        f"for name in {GAMES!r}: assert check_game(resolve(name)).rounds\n"
        "found = {'torch', 'numpy', 'lightning', 'transformers'} & set(sys.modules)\nassert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

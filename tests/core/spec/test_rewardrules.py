"""What rewards and policy gradients ask of one another; the classes cannot be imported, so nothing is constructed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.spec.games import check_game
from nashtune.spec.resolve import resolve

PARTS = '''\
from __future__ import annotations

import a_module_that_is_nowhere

from nashtune.interfaces import KLController, Loss, PreferenceOracle, RewardOracle, Sampler


class Gradient(Loss):
    """A policy gradient that stays with its rollouts for one step."""

    rows = "rollouts"

    def __call__(self, batch, step): ...


class Clipped(Gradient):
    """One that takes several."""

    uses_old = True


class Grouped(Gradient):
    """One that compares completions."""

    min_completions = 4


class Sided(Loss):
    """Takes two betas."""

    beta_per_side = True

    def __call__(self, batch, step): ...


class Reads(Loss):
    """Reads the variance itself."""

    uses_variance = True

    def __call__(self, batch, step): ...


class Weighted(KLController):
    """Reads the variance."""

    uses_variance = True
    beta_per_side = True

    def beta(self, batch): ...


class Follows(KLController):
    """Moved by rollouts."""

    rows = ("rollouts",)
    anchors = ("ref",)

    def beta(self, batch): ...


class Judge(PreferenceOracle):
    """Compares."""

    def compare(self, prompts, first, second): ...


class Scorer(RewardOracle):
    """Scores."""

    def score(self, prompts, completions): ...


class Ensemble(RewardOracle):
    """Scores, knows how well, and compares the completions of a prompt."""

    gives_variance = True
    counts_groups = True

    def score(self, prompts, completions): ...


class Certain(RewardOracle):
    """Scores and knows how well, each completion on its own."""

    gives_variance = True

    def score(self, prompts, completions): ...


class Open(RewardOracle):
    """Left to the run."""

    chosen_by_run = True

    def score(self, prompts, completions): ...


class OpenJudge(PreferenceOracle):
    """Left to the run."""

    chosen_by_run = True

    def compare(self, prompts, first, second): ...


class Draws(Sampler):
    """Draws.

    Args:
        completions: Of a prompt.
        temperature: Divides the logits.
        top_p: Mass that is kept.
    """

    def __init__(self, *, completions: int = 4, temperature: float = 1.0, top_p: float = 1.0) -> None: ...

    def attach(self, surroundings): ...

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None): ...


class Tape(Sampler):
    """Replays."""

    replays = True

    def attach(self, surroundings): ...

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None): ...
'''
FIXED = {"name": "fixed", "beta": 0.1}


@pytest.fixture
def rl(tmp_path, monkeypatch):
    """A right spec of reinforcement learning, with sections replaced: a capital begins one of the classes above."""
    (tmp_path / "reward_rule_parts.py").write_text(PARTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    def full(section):
        if isinstance(section, dict):
            return {**section, "name": full(section["name"])}
        return f"reward_rule_parts.{section}" if section[0].isupper() else section

    def rl(**changed):
        sections = {"loss": "Gradient", "kl": FIXED, "oracle": "Scorer", "sampler": "Draws", "schedule": "on_policy"}
        given = {name: full(one) for name, one in {**sections, **changed}.items() if one is not None}
        return {"references": {"ref": "base"}, **given}

    return rl


@pytest.fixture
def game(rl):
    """The same with pairs."""

    def game(**changed):
        return rl(**{"loss": "dpo", "schedule": "online", "pairing": "best_worst", "oracle": "Ensemble", **changed})

    return game


def refused(sections: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        resolve(sections)
    (line,) = str(caught.value).splitlines()
    return line


def test_right_ones(rl, game):
    for sections in (
        rl(),
        rl(kl="Weighted", oracle="Ensemble"),
        rl(kl="Weighted", oracle="Certain", sampler={"name": "Draws", "completions": 1}),
        rl(kl="Weighted", oracle="Open"),
        rl(kl="Weighted", oracle=None, sampler="Tape"),
        rl(kl="Follows"),
        rl(loss="Clipped"),
        game(kl="Weighted", loss="Sided"),
        game(loss="Reads"),
        game(),
    ):
        assert resolve(sections)
    assert "a_module_that_is_nowhere" not in sys.modules


@pytest.mark.parametrize("oracle", ["Scorer", "vader", {"name": "reward_model", "path": "somewhere"}])
def test_a_variance_that_the_oracle_does_not_know(rl, oracle):
    line = refused(rl(kl="Weighted", oracle=oracle))
    assert "reads the variance of the rewards, and the oracle" in line
    assert "knows none; use an oracle that gives it (reward_ensemble), or another kl" in line


def test_check_refuses_it_before_anything_loads(rl, tmp_path):
    """`nashtune check` of the shipped controller and an oracle without variance, in a process that loads no torch."""
    file = tmp_path / "spec.yaml"
    file.write_text(
        "loss: ppo\nkl: variance_weighted\nreferences: {ref: base}\noracle: vader\n"
        "sampler: {name: policy, completions: 4}\nschedule: on_policy\n",
        encoding="utf-8",
    )
    code = (
        "import sys; from nashtune.cli.main import main\n"
        f"code = main(['check', {str(file)!r}])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "kl 'variance_weighted' reads the variance of the rewards, and the oracle 'vader' knows none" in done.stderr


def test_an_override_of_the_oracle_is_refused_alike(capsys):
    assert main(["check", "uncertainty_rlhf", "--spec.oracle", "vader"]) == 2
    assert "kl 'variance_weighted' reads the variance of the rewards, and the oracle 'vader'" in capsys.readouterr().err


def test_a_variance_without_a_game():
    line = refused({"loss": "uncertainty_pairwise", "kl": "variance_weighted", "references": {"ref": "base"}})
    assert "reads the variance of rewards, and the schedule 'offline' draws no completions" in line


def test_a_loss_may_read_the_variance_too(game):
    assert "reads the variance of the rewards, and the oracle" in refused(game(loss="Reads", oracle="Judge"))


def test_an_ensemble_needs_two_completions_to_centre_over(rl, game):
    for sections in (rl(kl="Weighted", oracle="Ensemble", sampler={"name": "Draws", "completions": 1}),):
        line = refused(sections)
        assert (
            "sampler.completions: 1; the oracle" in line
            and "compares the completions of a prompt; give at least 2" in line
        )
    assert resolve(rl(oracle="Ensemble", sampler={"name": "Draws", "completions": 1}))  # nobody reads the variance


def test_two_betas_need_a_loss_that_takes_them(game):
    line = refused(game(kl="Weighted"))
    assert "gives chosen and rejected a beta each, and the loss 'dpo' takes one for both" in line
    assert "(uncertainty_pairwise)" in line


def test_a_controller_of_rollouts_has_nothing_to_follow_in_pairs(game):
    assert "works on rollouts, and the loss 'dpo' trains on pairs; use a kl for pairs" in refused(game(kl="Follows"))
    line = refused({"loss": "dpo", "kl": {"name": "adaptive", "beta": 0.1}, "references": {"ref": "base"}})
    assert "kl 'adaptive' works on rollouts, and the loss 'dpo' trains on pairs; use a kl for pairs (" in line
    assert "epsilon_dpo, fixed, variance_weighted" in line and "a loss on rollouts (" in line and "ppo" in line


def test_a_controller_may_read_a_reference_that_the_loss_does_not(rl):
    sections = rl(kl="Follows")
    sections["references"] = "none"
    assert "reads the reference 'ref', which is missing" in refused(sections)


def test_rewards_one_by_one_need_an_oracle_that_gives_them(rl):
    line = refused(rl(oracle="Judge"))
    assert (
        "has completions rewarded one by one, and the oracle" in line
        and "compares pairs; use one that scores (" in line
    )
    assert "stands for one that compares pairs; write `oracle: reward`" in refused(rl(oracle="OpenJudge"))


def test_rewards_one_by_one_need_a_policy_gradient(rl):
    with pytest.raises(InputError, match="the loss 'dpo' trains on pairs; use a policy gradient, or schedule: online"):
        resolve(rl(loss="dpo"))


def test_a_loss_on_groups_needs_enough_completions(rl):
    line = refused(rl(loss="Grouped", sampler={"name": "Draws", "completions": 3}))
    assert "sampler.completions: 3; the loss" in line
    assert line.endswith("compares each completion with the others of its prompt; give at least 4")


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.7), ("top_p", 0.9)])
@pytest.mark.parametrize("loss", ["Clipped", "Gradient"])
def test_a_gradient_is_that_of_completions_of_the_policy_itself(rl, loss, name, value):
    line = refused(rl(loss=loss, sampler={"name": "Draws", name: value}))
    assert f"sampler.{name}: {value:g} draws from another distribution than the policy" in line


@pytest.mark.parametrize(("sampler", "what"), [("best_of_n", "chooses among"), ("mixture", "draws from a mixture")])
def test_a_sampler_that_is_not_the_policy(rl, sampler, what):
    assert f"the sampler '{sampler}' {what}" in refused(rl(sampler=sampler))


def test_no_opponent_and_no_pairing_with_a_schedule_of_rewards(rl):
    declared = check_game(resolve(rl(sampler="policy")))
    assert declared is not None and declared.most is None and len(declared.rounds) == 1000


def test_an_opponent_beside_rewards(rl, tmp_path):
    (tmp_path / "reward_rule_schedule.py").write_text(
        "from nashtune.interfaces.schedule import Collect, Judge, Pair, Round, Schedule, Update\n\n\n"
        'class Both(Schedule):\n    """Both."""\n\n    reads = ("oracle", "sampler")\n    scores = True\n\n'
        "    def rounds(self):\n"
        '        draws = (Collect(policy=None), Collect(policy="start", role="opponent"))\n'
        "        return (Round(phases=(*draws, Judge(), Pair(), Update(reset=False))),)\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match=r"rewarded one by one, and draws an opponent's completions, too; one of them"):
        check_game(resolve(rl(sampler="policy", schedule="reward_rule_schedule.Both")))

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bandit_numbers import DETACHED_FLOORED, ESTIMATE, GOLD, REFERENCE, SIGMA
from nashtune.cli.main import main

SIX = {
    "rewards": GOLD.tolist(),
    "sigma": SIGMA.tolist(),
    "reference": REFERENCE.tolist(),
    "estimate": ESTIMATE.tolist(),
}
AWARE = ("uncertainty_rlhf_rloo", "--spec.kl.beta", "1", "--spec.kl.v_min", "0.25", "--draws", "200")


@pytest.fixture
def bandit(tmp_path: Path) -> str:
    path = tmp_path / "six.json"
    path.write_text(json.dumps(SIX))
    return str(path)


def test_the_table_says_what_is_exact_and_what_was_drawn(bandit: str, capsys):
    assert main(["verify", *AWARE, "--game", bandit]) == 0
    out = capsys.readouterr().out
    assert out.startswith("uncertainty_rlhf_rloo on six: 6 arms, float64\n")
    assert "0.471355" in out and "λ = 0.650109" in out
    assert "risk of small steps, exact (quadratic penalties): vanilla 0.190907525799, aware 0.0351418247721" in out
    assert "risks and gains over the noise: Monte Carlo, 200 draws, seed 0; ±: standard error" in out
    rows = [line for line in out.splitlines() if "±" in line and "vanilla KL" in line]
    assert len(rows) == 2


def test_json(bandit: str, capsys):
    assert main(["verify", *AWARE, "--game", bandit, "--seed", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["spec"], found["game"], found["draws"], found["seed"]) == ("uncertainty_rlhf_rloo", "six", 200, 4)
    assert found["policy"] == pytest.approx(DETACHED_FLOORED, abs=1e-9)
    assert found["closed_form"]["distance"] < 1e-12
    assert found["closed_form"]["lambda"] == pytest.approx(0.6501086284, abs=1e-10)
    assert found["gold"] - found["gold_reference"] == pytest.approx(found["gain"])
    assert found["risk_method"] == "monte_carlo" and found["risk_standard_error"] > 0
    assert {"risk", "kl", "mean_gain", "mean_gain_standard_error", "quantile_5", "mean_kl", "beta"} <= set(found)
    assert [line["beta"] for line in found["theory"][:2]] == [1.0, 1.0]
    assert found["small_step_risk"]["method"] == "exact"
    assert main(["verify", *AWARE, "--game", bandit, "--seed", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["risk"] != found["risk"]


def test_several_files_are_several_prompts(bandit: str, tmp_path: Path, capsys):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"rewards": [1, 0], "sigma": [1, 1], "reference": [0.5, 0.5]}))
    assert main(["verify", *AWARE, "--game", bandit, "--game", str(other)]) == 0
    out = capsys.readouterr().out
    assert "2 prompts" in out and "arm of six" in out and "arm of other" in out


def test_a_picture_is_saved(bandit: str, tmp_path: Path, capsys):
    path = tmp_path / "bandit.png"
    assert main(["verify", *AWARE, "--game", bandit, "--plot", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"picture: {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")
    quiet = tmp_path / "quiet.json"
    quiet.write_text(json.dumps({"rewards": [1, 0], "sigma": [0, 0], "reference": [0.5, 0.5]}))
    assert main(["verify", "rloo", "--game", str(quiet), "--plot", str(path)]) == 0
    assert "risks are exact: no arm's reward is noisy" in capsys.readouterr().out


def test_no_optimum_is_exit_code_1(bandit: str, capsys):
    options = ["--spec.loss.kl_in", "reward", "--spec.loss.kl_estimator", "k1"]
    assert main(["verify", "grpo", "--game", bandit, *options]) == 1
    assert capsys.readouterr().err.startswith("failed: no optimum: the loss divides a prompt's advantages")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "0.5,0.5"], "--start: does not go with a bandit; the file's 'reference' is the policy"),
        (["--pairs", "10"], "--pairs: does not go with a bandit; expectations over a bandit are exact"),
        (["--rounds", "3"], "--rounds: the schedule 'on_policy' of uncertainty_rlhf_rloo has no number of rounds"),
        (["--draws", "1"], "--draws: expected a whole number >= 2, found '1'"),
        (["--game", "rps"], "--game rps: is no bandit"),
        (["--plot", "a.pdf"], "a picture is a PNG file"),
    ],
)
def test_wrong_options_are_refused(arguments, message: str, bandit: str, capsys):
    assert main(["verify", *AWARE, "--game", bandit, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_wrong_files_are_refused(tmp_path: Path, capsys):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({**SIX, "sigma": [1.0]}))
    assert main(["verify", "rloo", "--game", str(path)]) == 2
    assert "wrong: sigma has 1 numbers, and rewards 6" in capsys.readouterr().err
    assert main(["verify", "rloo", "--draws", "10"]) == 2
    assert "--draws: goes with a bandit" in capsys.readouterr().err


def test_files_that_do_not_fit_together_are_refused(bandit: str, tmp_path: Path, capsys):
    heads = tmp_path / "heads.json"
    heads.write_text(json.dumps({"rewards": [1, 0], "sigma": [1, 1], "reference": [0.5, 0.5], "members": [[1, 0]] * 3}))
    assert main(["verify", *AWARE, "--game", bandit, "--game", str(heads)]) == 2
    assert "six has no members and heads 3" in capsys.readouterr().err
    heads.write_text(json.dumps({**SIX, "members": 5, "estimate": None}))
    assert main(["verify", *AWARE, "--game", str(heads)]) == 2
    assert "heads: members: expected one list of scores per member, found 5" in capsys.readouterr().err

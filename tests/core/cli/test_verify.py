from __future__ import annotations

import json
from pathlib import Path

import pytest

from nashtune.cli.main import main

STEP = ("--spec.loss.eta", "0.5")


def test_the_table_has_chosen_rounds_and_says_what_was_replaced(capsys):
    assert main(["verify", "onpo", "--rounds", "12", *STEP]) == 0
    out = capsys.readouterr().out
    assert out.startswith("onpo on weighted_rps: 12 rounds, float64\n")
    first_words = [line.split()[0] for line in out.splitlines() if line.split()]
    assert [word for word in first_words if word.isdigit()] == ["0", "1", "2", "5", "10", "12"]
    assert "bound (2D/η + 2η)/T" in out and "0.184502" in out  # the gap of the second policy
    assert "note: replaced by exact expectation over the game: oracle (preference), sampler (policy)" in out


def test_json_holds_every_round(capsys):
    arguments = ["verify", "inpo", "--game", "rps", "--rounds", "4", "--spec.loss.tau", "0.1", "--spec.loss.eta", "2"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["spec"], found["game"], found["rounds"]) == ("inpo", "rps", 4)
    assert found["duality_gap"]["last"] == pytest.approx([0.3, 0.36480966, *found["duality_gap"]["last"][2:]], rel=1e-6)
    assert len(found["duality_gap"]["average"]) == len(found["regularised_gap"]["last"]) == 5
    assert found["policy"]["last"][0] == pytest.approx([0.6, 0.3, 0.1])


def test_start_file_and_several_games(tmp_path: Path, capsys):
    path = tmp_path / "dice.csv"
    p = 5 / 9
    path.write_text(f"0.5,{p!r},{1 - p!r}\n{1 - p!r},0.5,{p!r}\n{p!r},{1 - p!r},0.5\n")
    arguments = ["verify", "onpo", "--game", str(path), "--start", "0.6,0.3,0.1", "--rounds", "2", "--json"]
    assert main([*arguments, "--spec.loss.eta", "5"]) == 0
    policies = json.loads(capsys.readouterr().out)["policy"]["last"]
    assert policies[1] == pytest.approx([0.6600256006, 0.2236858369, 0.1162885624], abs=1e-10)
    assert policies[2] == pytest.approx([0.6700541552, 0.1921018361, 0.1378440086], abs=1e-10)
    assert main(["verify", "onpo", "--game", str(path), "--game", "random10", "--rounds", "1", *STEP]) == 0
    assert capsys.readouterr().out.startswith("onpo on dice, random10: 1 round, float64\n")


def test_an_offline_spec_shows_its_fixed_point(capsys):
    assert main(["verify", "dpo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rounds"] == 1 and len(found["policy"]["last"]) == 2
    assert found["rate"] is None and found["regularised_gap"] == {"last": None}


def test_sampled_runs_repeat_with_their_seed(capsys):
    outs = []
    for seed in ("1", "1", "2"):
        options = ["--pairs", "50", "--pairing", "tournament", "--completions", "4", "--seed", seed, "--json"]
        assert main(["verify", "onpo", "--rounds", "2", *STEP, *options]) == 0
        outs.append(json.loads(capsys.readouterr().out))
    assert outs[0] == outs[1] != outs[2]
    assert any(note.startswith("sampled:") for note in outs[0]["notes"])


def test_a_picture_is_saved(tmp_path: Path, capsys):
    path = tmp_path / "game.png"
    assert main(["verify", "onpo", "--rounds", "3", *STEP, "--plot", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"picture: {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_no_finite_minimiser_is_exit_code_1(capsys):
    assert main(["verify", "dpo", "--game", "condorcet:4"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("failed: dpo, round 1, update of main: the loss has no finite minimiser")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which spec? Give its name or file"),
        (["onpoo"], "did you mean 'onpo'"),
        (["onpo", "--spec", "inpo"], "two specs, onpo and --spec inpo"),
        (["onpo", "--config", "demo"], "takes no run file"),
        (["onpo", "--game", "rsp"], "did you mean 'rps'"),
        (["dpo", "--rounds", "5"], "--rounds: the schedule 'offline' of dpo has no number of rounds to set"),
        (["onpo", "--rounds", "0"], "--rounds: expected a whole number >= 1, found '0'"),
        (["onpo", "--rounds", "many"], "--rounds: expected a whole number >= 1, found 'many'"),
        (["onpo", "--start", "a,b"], "--start: expected probabilities such as 0.6,0.3,0.1, found 'a,b'"),
        (["onpo", "--start", "0.5,0.5"], "has 2 probabilities, and the game 3 actions"),
        (["onpo", "--spec.loss.etta", "1"], "did you mean 'eta'"),
        (["onpo", "--spec.loss.eta", "-1"], "eta"),
        (["onpo", "--seed", "1"], "--seed: goes with --pairs N"),
        (["onpo", "--pairs", "0"], "--pairs: expected a whole number >= 1, found '0'"),
        (["onpo", "--plot", "game.pdf"], "a picture is a PNG file"),
        (["onpo", "--plot", "nowhere/game.png"], "there is no folder nowhere"),
        (["onpo", "--game", "none.csv"], "none.csv: no such file"),
        (["kto"], "reads single examples"),
        (["nash_md_pg"], "verify nash_md"),
    ],
)
def test_wrong_command_lines_are_refused(arguments, message: str, capsys):
    assert main(["verify", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and "Traceback" not in err

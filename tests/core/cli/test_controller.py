"""`nashtune controller`: whether a spec's KL controller settles on a simulated plant."""

from __future__ import annotations

import json

import pytest

from nashtune.cli.main import main

ADAPTIVE = ("controller", "ppo", "--spec.kl", "adaptive", "--spec.kl.beta", "0.1")


def shown(capsys, *argv: str) -> dict:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_adaptive_controller_settles(capsys):
    assert main([*ADAPTIVE, "--rounds", "400"]) == 0
    out = capsys.readouterr().out
    assert (
        "ppo: 400 rounds of 512 completions; lag 20, delay 0, noise 0.05; the KL rests at 6 nats under β = 0.2" in out
    )
    assert (
        "settles within a tenth of the target from round 140 on; a small disturbance shrinks by 0.9773 a round" in out
    )


def test_json_has_the_whole_run(capsys):
    found = shown(capsys, *ADAPTIVE, "--rounds", "30", "--noise", "0", "--seed", "3", "--rest", "0.4")
    assert found["reacts"] and found["plant"]["beta_rest"] == 0.4 and found["plant"]["seed"] == 3
    (trace,) = found["traces"]
    assert len(trace["kl"]) == len(trace["beta"]) == 30
    assert trace["kl"] == pytest.approx(trace["measured"])
    assert trace["kl"][0] == 0.0 and trace["beta"][0] == 0.1 and trace["settled"] is None
    assert "does not settle in 30 rounds" in trace["verdict"]


def test_one_run_for_each_value_of_an_option(capsys, tmp_path):
    picture = tmp_path / "gains.png"
    found = shown(capsys, *ADAPTIVE, "--vary", "gain=horizon,constant", "--delay", "10", "--plot", str(picture))
    assert [trace["name"] for trace in found["traces"]] == ["adaptive, gain horizon", "adaptive, gain constant"]
    assert all(trace["radius"] > 1.0 and "unstable at the target" in trace["verdict"] for trace in found["traces"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    targets = shown(capsys, *ADAPTIVE, "--vary", "target=3,12", "--rounds", "20")
    assert [trace["setpoint"] for trace in targets["traces"]] == [3.0, 12.0]


def test_a_fixed_beta_has_nothing_to_settle(capsys):
    assert main(["controller", "ppo"]) == 0
    assert (
        "kl 'fixed' does not react to the rounds of a run, so that there is nothing to settle"
        in capsys.readouterr().out
    )
    assert shown(capsys, "controller", "dpo")["reacts"] is False


def test_a_controller_without_a_target(capsys):
    assert main(["controller", "uncertainty_rlhf", "--rounds", "200", "--completions", "64"]) == 0
    assert "variance_weighted: steers to no KL of its own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("controller", "simpo"), "simpo: the spec has no KL controller (kl: none)"),
        ((*ADAPTIVE, "--vary", "gian=horizon"), "'gian' is no option of kl 'adaptive'; did you mean 'gain'?"),
        ((*ADAPTIVE, "--vary", "gain"), "0 values; give 1 to 6, as gain=A,B"),
        ((*ADAPTIVE, "--vary", "horizon=soon"), "--spec.kl.horizon: expected a number > 0, found 'soon'"),
        ((*ADAPTIVE, "--lag", "0.5"), "--lag: expected a number >= 1, found '0.5'"),
        ((*ADAPTIVE, "--noise", "nan"), "--noise: expected a number >= 0, found 'nan'"),
        ((*ADAPTIVE, "--rest", "0"), "--rest: 0; a β is above 0"),
        ((*ADAPTIVE, "--delay", "-1"), "--delay: expected a whole number >= 0, found '-1'"),
        ((*ADAPTIVE, "--rounds", "1"), "--rounds: expected a whole number >= 2, found '1'"),
        ((*ADAPTIVE, "--plot", "gains.svg"), "a picture is a PNG file"),
        ((*ADAPTIVE, "--plot", "nowhere/gains.png"), "there is no folder nowhere"),
    ],
)
def test_wrong_options(argv, said, capsys):
    assert main(argv) == 2
    assert said in capsys.readouterr().err

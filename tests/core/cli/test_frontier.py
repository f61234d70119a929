from __future__ import annotations

import json
from pathlib import Path

import pytest

from nashtune.cli.main import main

SAMPLES = {"gold": [0.2, 0.0, -0.3, 0.9, 0.4], "proxies": [[0.3, -0.1, 0.8, 0.5, 0.1]], "sampled": True}


def written(tmp_path: Path, content: object) -> str:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_the_built_in_example(tmp_path: Path, capsys):
    picture = tmp_path / "frontier.png"
    assert main(["frontier", "--n", "1,16,64", "256", "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("best-of-n on the built-in example: 1 prompt, exact\n")
    assert "0.882184" in out and "7.300445" in out and "gold, UWO 0.5" in out and "gold = d (α − β d)" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_of_samples(tmp_path: Path, capsys):
    assert main(["frontier", "--game", written(tmp_path, SAMPLES), "--n", "1", "2", "3", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == [1, 2, 3, 5] and found["exact"] is False
    assert found["kl"] == pytest.approx([0.0, 0.1931471806, 0.4319456220, 0.8094379124], abs=1e-10)
    single = found["curves"]["single"]
    assert single["gold"] == pytest.approx([0.24, 0.23, 0.11, -0.3]) and single["best_n"] == 1
    assert set(single["fit"]) >= {"alpha", "beta", "alpha_standard_error", "beta_standard_error", "peak_d", "r2"}
    assert list(found["curves"]) == ["single"] and "one reward model" in found["notes"][0]


def test_arms_with_probabilities_and_several_prompts(tmp_path: Path, capsys):
    content = {
        "gold": [[1, 0, 2], [0, 3]],
        "proxies": [[[1, 2, 3], [3, 1, 2]], [[1, 2], [0, 1]]],
        "reference": [[0.2, 0.3, 0.5], [0.5, 0.5]],
    }
    assert main(["frontier", "--game", written(tmp_path, content), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == [1, 2]
    assert found["curves"]["single"]["gold"] == pytest.approx([(1.2 + 1.5) / 2, (0.04 + 2 * 0.75 + 3 * 0.75) / 2])
    assert found["curves"]["mean"]["fit"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gold": [1, 2]}, "gold has 2 answers, and a list of proxies 5"),
        ({"gold": [1, 2, 3, 4, float("nan")]}, "gold[4] is nan; expected a finite number"),
        ({"proxies": [1, 2, 3, 4, 5]}, "proxies: expected one list of numbers per reward model"),
        ({"gold": [1, 2, 3, 4, 10**400]}, "scores.json: gold: expected a list of numbers: int too large"),
        ({"proxies": [[1e300, 2, 3, 4, 5], [-1e300, 2, 3, 4, 5]]}, "UWO 0.5: gold or the aggregate of the proxies is"),
        ({"proxies": []}, "'proxies' is missing or no list"),
        ({"goldd": [1]}, "'goldd' is not a key of this file; did you mean 'gold'"),
        ({"sampled": 1}, "sampled: expected true or false"),
        ({"reference": [0.2] * 5}, "leave out 'reference' or 'sampled'"),
        ({"sampled": False, "reference": [0.5] * 5}, "reference sums to 2.5, expected 1"),
        ({"sampled": False, "reference": [1, 0, 0, 0, 0]}, "every probability must be above 0"),
        ({"gold": [1], "proxies": [[1]]}, "one answer leaves nothing to choose"),
        ({"gold": [[1, 2]], "proxies": [[[1, 2]], [[1, 2]]]}, "gold has 1 prompts; 'proxies' must have as many"),
    ],
)
def test_wrong_files_are_refused(changes, message: str, tmp_path: Path, capsys):
    assert main(["frontier", "--game", written(tmp_path, {**SAMPLES, **changes})]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "0"], "--n: expected whole numbers >= 1 such as 1,4,16, found '0'"),
        (["--n", "many"], "found 'many'"),
        (["--n", ","], "--n: expected whole numbers"),
        (["--n", "6"], "--n 6: a prompt has 5 answers"),
        (["--plot", "a.pdf"], "a picture is a PNG file"),
    ],
)
def test_wrong_options_are_refused(arguments, message: str, tmp_path: Path, capsys):
    assert main(["frontier", "--game", written(tmp_path, SAMPLES), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert main(["frontier", "--game", "none.json"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_rules_at_different_divergences_have_columns_of_their_own(tmp_path: Path, capsys):
    content = {
        "gold": [0.1, 0.5, -0.2, 0.9, 0.3],
        "proxies": [[0.1, 0.7, 0.3, 0.5, 0.9], [0.9, 0.2, 0.4, -0.6, 0.1]],
        "reference": [0.6, 0.2, 0.1, 0.06, 0.04],
    }
    picture = tmp_path / "own.png"
    options = ["--game", written(tmp_path, content), "--n", "1,2,4,8"]
    assert main(["frontier", *options, "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "KL, single" in out and "KL, LCB 1" in out and picture.read_bytes().startswith(b"\x89PNG")
    assert main(["frontier", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kl"] is None
    assert found["curves"]["single"]["kl"][1] != pytest.approx(found["curves"]["mean"]["kl"][1], rel=0.01)

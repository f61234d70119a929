"""The script that makes the preference set: its parts on plain data, and end to end on the tiny model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from nashtune.demo import make_preferences as script
from nashtune.errors import InputError
from nashtune.interfaces.oracle import RewardOracle, Rewards


class LengthOracle(RewardOracle):
    """Longer is better: a byte-level random model says nothing that has a sentiment."""

    def score(self, prompts, completions):
        return Rewards(mean=torch.tensor([float(len(text)) for text in completions], dtype=torch.float64))


def arguments(tiny, out, *more):
    sizes = ["--samples", "6", "--max-new-tokens", "24", "--temperature", "1.5"]
    return ["--out", str(out), "--model", str(tiny), "--limit", "2", *sizes, *more]


@pytest.fixture
def likely_eos(tiny, tmp_path):
    """The tiny model with a quarter of its vocabulary as EOS: nearly uniform, it would hardly ever draw one."""
    from transformers import GenerationConfig

    folder = tmp_path / "likely"
    shutil.copytree(tiny, folder)
    GenerationConfig(eos_token_id=[2, *range(200, 262)]).save_pretrained(folder)
    return folder


def test_prompts_are_trimmed_and_empty_lines_do_not_count():
    assert script.read_prompts("one\n\n two \n") == ["one", "two"]


def test_a_prompt_that_stands_twice_is_refused():
    with pytest.raises(InputError, match="line 3: 'one' stands in line 1 already"):
        script.read_prompts("one\ntwo\none\n")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A lovely day.", True),
        ("Mortgage.", False),
        ("", False),
        ("One line\nand another one", False),
        ("That film is about racism.", False),
        ("The skilled cook smiles.", True),
    ],
)
def test_which_completions_may_enter_the_set(text, kept):
    assert script.is_sentence(text) is kept


def test_rows_pair_the_best_with_the_worst_and_skip_close_ones():
    texts = {0: ["aa", "aaaaaa", "a"], 1: ["aa", "aa"], 2: []}
    rows = script.make_rows(["p", "q", "r"], texts, LengthOracle(), min_gap=2.0)
    assert rows == [
        {
            "prompt": "p",
            "chosen": "aaaaaa",
            "rejected": "a",
            "chosen_score": 6.0,
            "rejected_score": 1.0,
            "source": "demo",
        }
    ]


def test_the_split_is_by_prompt_and_does_not_hang_on_the_order_of_rows():
    rows = [{"prompt": f"p{i}", "n": n} for i in range(20) for n in range(2)]
    splits = script.split(rows, 0.25)
    prompts = {name: {row["prompt"] for row in part} for name, part in splits.items()}
    assert (len(prompts["train"]), len(prompts["validation"])) == (15, 5)
    assert not prompts["train"] & prompts["validation"]
    assert len(splits["train"]) + len(splits["validation"]) == 40
    assert {row["prompt"] for row in script.split(rows[::-1], 0.25)["validation"]} == prompts["validation"]


def test_the_script_end_to_end(likely_eos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nashtune.oracles.vader.VaderOracle", LengthOracle)
    monkeypatch.setattr(script, "CHUNK", 1)
    monkeypatch.setattr(script, "LEAST_WORDS", 1)  # random bytes hold few spaces
    for name in ("one", "two"):
        command = arguments(likely_eos, tmp_path / name, "--validation-share", "0.5", "--min-gap", "1")
        assert script.main(command) == 0
    numbers = json.loads(capsys.readouterr().out.split("}")[0] + "}")
    assert (numbers["prompts"], numbers["completions"]) == (2, 12)
    assert (numbers["pairs_train"], numbers["pairs_validation"]) == (1, 1)
    assert numbers["mean_gap"] >= 1.0
    for name in script.SPLITS:
        made = (tmp_path / "one" / f"demo-{name}.jsonl").read_text()
        assert made == (tmp_path / "two" / f"demo-{name}.jsonl").read_text()
        row = json.loads(made)
        assert row["chosen_score"] > row["rejected_score"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "demo-train.jsonl",
        "demo-validation.jsonl",
    ]


def test_an_existing_set_is_not_overwritten(tiny, tmp_path, capsys):
    (tmp_path / "demo-train.jsonl").write_text("mine\n")
    assert script.main(arguments(tiny, tmp_path)) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "demo-train.jsonl").read_text() == "mine\n"


def test_a_model_that_is_not_there_is_named(tmp_path, capsys):
    assert script.main(arguments(tmp_path / "nowhere", tmp_path / "out")) == 2
    assert "nowhere is neither demo:smollm2 nor a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--samples", "0"), ("--temperature", "-1"), ("--validation-share", "2")]
)
def test_an_option_out_of_range_is_refused_before_anything_is_read(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        script.main(["--out", str(tmp_path / "out"), option, value])
    assert stopped.value.code == 2
    assert f"argument {option}: invalid" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_pair_at_all_says_which_settings_to_change(likely_eos, tmp_path, capsys):
    assert script.main(arguments(likely_eos, tmp_path / "out", "--min-gap", "9")) == 2
    error = capsys.readouterr().err
    assert "no pair came out of 2 prompts" in error and "--min-gap 9" in error
    assert list((tmp_path / "out").iterdir()) == []

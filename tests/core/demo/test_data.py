"""The preference set that ships: what its card says is true of its rows."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from nashtune.demo.make_preferences import build_parser, is_sentence, read_prompts, split
from nashtune.oracles.vader import VaderOracle

DATA = files("nashtune_specs").joinpath("data")


@pytest.fixture(scope="module")
def rows():
    texts = {name: DATA.joinpath(f"demo-{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "validation")}
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()}


@pytest.fixture(scope="module")
def prompts():
    return read_prompts(files("nashtune.demo").joinpath("prompts.txt").read_text(encoding="utf-8"))


def test_there_are_enough_short_prompts(prompts):
    assert len(prompts) >= 350
    assert max(len(prompt.split()) for prompt in prompts) <= 20


def test_every_row_is_complete_and_of_a_known_prompt(rows, prompts):
    keys = ["prompt", "chosen", "rejected", "chosen_score", "rejected_score", "source"]
    for row in rows["train"] + rows["validation"]:
        assert list(row) == keys
        assert row["prompt"] in prompts
        assert row["source"] == "demo"
        assert is_sentence(row["chosen"]) and is_sentence(row["rejected"])


def test_no_prompt_is_in_both_parts_nor_twice(rows):
    seen = [row["prompt"] for part in rows.values() for row in part]
    assert len(seen) == len(set(seen))


def test_the_parts_are_those_that_the_script_makes(rows):
    share = build_parser().parse_args(["--out", "."]).validation_share
    assert split(rows["validation"] + rows["train"], share) == rows


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_scores_are_those_of_the_oracle_and_far_enough_apart(rows, part):
    min_gap = build_parser().parse_args(["--out", "."]).min_gap
    for name in ("chosen", "rejected"):
        texts = [row[name] for row in rows[part]]
        assert VaderOracle().score(texts, texts).mean.tolist() == [row[f"{name}_score"] for row in rows[part]]
    assert min(row["chosen_score"] - row["rejected_score"] for row in rows[part]) >= min_gap


def test_the_card_states_the_numbers(rows):
    card = DATA.joinpath("README.md").read_text(encoding="utf-8")
    every = rows["train"] + rows["validation"]
    gap = sum(row["chosen_score"] - row["rejected_score"] for row in every) / len(every)
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in every) / len(every)
    assert f"| pairs, training part | {len(rows['train'])} |" in card
    assert f"| pairs, held-out part | {len(rows['validation'])} |" in card
    assert f"| mean difference of the two scores | {gap:.2f} |" in card
    assert f"| chosen text is the longer one | {longer:.0%} of pairs |" in card

"""The comparison that ends a game can be read, and made again, from the run folder alone."""

from __future__ import annotations

import json
from statistics import fmean

import pytest
from transformers import AutoTokenizer

from lab import Lab, pair_rows, write_rows
from nashtune.journal.records import read_completions
from nashtune.journal.store import Journal
from nashtune.oracles.compare import probabilities
from nashtune.oracles.rules import RulesOracle
from nashtune.training.face_off import COMPARISONS, KEY, PROMPTS


def test_prompts_answers_and_verdicts_are_kept(game: Lab) -> None:
    run = game.fit("--spec.schedule.rounds", "2", "--spec.optimizer.lr", "0.05", spec="onpo")
    (game.folder / "validation.jsonl").unlink()
    journal = Journal(run / "answers")
    asked = [str(row["prompt"]) for row in pair_rows(3, start=100)]
    names, answers = [], {}
    tokenizer = AutoTokenizer.from_pretrained(run / "export")
    for number in journal.rounds():
        names.append(journal.read_table(number, KEY)["policy"][0])
        answers[names[-1]] = read_completions(journal, number, "policy", 0)[1]
        prompts = journal.read_table(number, PROMPTS)
        assert (prompts["prompt"], prompts["text"]) == ([0, 1, 2], asked)
        assert all(text in tokenizer.decode(ids) for text, ids in zip(asked, prompts["token_ids"], strict=True))
    rows = journal.read_table(1, COMPARISONS)
    verdicts = list(zip(*(rows[name] for name in ("prompt", "first", "second", "p")), strict=True))
    report = json.loads((run / "report.json").read_text())["win_rates"]
    assert report["policies"] == names == ["start", "main@1", "main@2"]
    for one, first in enumerate(names):
        for two, second in enumerate(names[one + 1 :], start=one + 1):
            kept = [p for _, a, b, p in verdicts if (a, b) == (first, second)]
            assert fmean(kept) == pytest.approx(report["rates"][one][two], abs=1e-12) and len(kept) == 3
            texts = [[answers[name][n] for n in range(3)] for name in (first, second)]
            again = probabilities(RulesOracle(rules=["distinct_1"]), asked, *texts)
            assert again.tolist() == pytest.approx(kept, abs=1e-12)


def test_rows_that_repeat_a_prompt_are_one_prompt(game: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Preference data, three pairs a prompt: in rounds and in the comparison at the end, each prompt is there once."""
    for name, count, start in (("train", 4, 0), ("validation", 2, 100)):
        write_rows(game.folder / f"{name}.jsonl", [row for row in pair_rows(count, start) for _ in range(3)])
    run = game.fit("--data.prompts_per_round", "4", spec="onpo")
    report = json.loads((run / "report.json").read_text())
    asked = [str(row["prompt"]) for row in pair_rows(2, start=100)]
    assert Journal(run / "answers").read_table(1, PROMPTS)["text"] == asked
    assert (report["win_rates"]["prompts"], report["win_rates"]["comparisons"]) == (2, 2 * 6)
    assert report["held_out_prompts"] == {"asked": 3, "answered": 2}
    assert [one["prompts"] for one in report["rounds"]] == [4, 4, 4]
    data = report["data"]["train"]
    assert (data["read"], data["used"], data["duplicates"]) == (12, 4, 8)
    assert "samples.prompts 3, but data.validation has 2 different prompts: all are answered" in caplog.text


def test_a_round_that_draws_more_than_its_steps_use_is_told_of_at_the_start(
    game: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("--data.prompts_per_round", "8", "--trainer.max_steps", "3", "--data.batch_size", "1")
    game.fit(*options, "--samples.prompts", "0", spec="onpo")
    assert (
        "round 1 of 3 draws 8 prompts x 4 completions, and trainer.max_steps 3 ends the run after 3 of that round's 16 "
        "steps, with 3 of its 8 pairs at most; give fewer prompts a round" in caplog.text
    )

"""Held-out prompts are asked of no policy that was trained on them, and it is said whose rows are read."""

from __future__ import annotations

import json

import pytest

from lab import pair_rows, write_rows
from nashtune.cli.main import main
from nashtune.comparison.budget import Budget
from nashtune.comparison.costs import Cost, overspent
from nashtune.comparison.held_out import held_out
from nashtune.comparison.plan import make_entries
from nashtune.comparison.rows_ahead import rows_notes
from nashtune.errors import InputError
from nashtune.models.preflight import load_tokenizer


def test_prompts_that_are_trained_on_are_left_out(ask, pit, tiny):
    """Two of five, one of them as a message and with a space at its end: 3 are new."""
    rows = pair_rows(2, start=3) + pair_rows(3, start=100)
    text = rows[1]["prompt"]
    rows[1] = {
        "chosen": [{"role": "user", "content": f"{text} "}, {"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "user", "content": f"{text} "}, {"role": "assistant", "content": "no"}],
    }
    write_rows(pit.folder / "validation.jsonl", rows)
    found = held_out(ask("dpo"), tokenizer=load_tokenizer(tiny))
    assert [row.prompt_text for row in found.rows] == [row["prompt"] for row in rows[2:]]
    assert found.notes == ["2 of 5 held-out prompts are also trained on (data.train has them), and are left out"]
    two = held_out(ask("dpo", "--prompts", "2"), tokenizer=load_tokenizer(tiny)).rows
    assert [row.where.rpartition(":")[2] for row in two] == ["3", "4"]
    with pytest.raises(InputError, match=r"--prompts 4: data.validation has 5 different prompts, and 2 of them are"):
        held_out(ask("dpo", "--prompts", "4"), tokenizer=load_tokenizer(tiny))


def test_the_training_rows_are_no_held_out_rows(ask, pit, tiny):
    with pytest.raises(InputError, match=r"data.validation: all of its 8 different prompts are prompts of data.train"):
        held_out(ask("dpo", "--data.validation", "train.jsonl"), tokenizer=load_tokenizer(tiny))


def test_rows_beyond_the_limit_are_not_trained_on(ask, pit, tiny):
    write_rows(pit.folder / "validation.jsonl", pair_rows(2) + pair_rows(2, start=6))
    found = held_out(ask("dpo", "--data.limit", "4"), tokenizer=load_tokenizer(tiny))
    assert len(found.rows) == 2


def test_it_is_said_first_and_on_the_page(pit, same_process, capsys):
    write_rows(pit.folder / "validation.jsonl", pair_rows(2) + pair_rows(3, start=100))
    command = ["compare", "dpo", "kto", "--config", "run.yaml", "--run_dir", "out", "--steps", "1"]
    rows = pair_rows(8)
    for row in rows[:3]:
        row["chosen"] = "word " * 30
    write_rows(pit.folder / "train.jsonl", rows)
    short = ["--data.max_length", "80", "--data.overflow", "drop"]
    assert main([*command, *short]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes[0] == "note: 2 of 5 held-out prompts are also trained on (data.train has them), and are left out"
    read = "dpo 5 of 8 pairs (5 different prompts), kto 13 of 16 completions (8 different prompts)"
    assert notes[1].startswith(f"note: the specs train on different rows: {read}; the rest is longer than")
    result = json.loads((pit.folder / "out/comparison.json").read_text())
    assert result["warnings"][:2] == [note.removeprefix("note: ") for note in notes[:2]]
    dpo, kto = result["data"]["specs"]["dpo"], result["data"]["specs"]["kto"]
    assert (dpo["unit"], dpo["rows"], dpo["read"], dpo["used"], dpo["distinct_prompts"]) == ("pairs", 8, 8, 5, 5)
    assert (kto["unit"], kto["read"], kto["used"], kto["distinct_prompts"]) == ("completions", 16, 13, 8)
    assert dpo["left_out"] == kto["left_out"] == {"longer than data.max_length": 3}
    assert result["data"]["held_out_also_trained_on"] == 2
    assert result["ratings"]["prompts"] == result["data"]["held_out"] == 3
    assert "2 of 5 held-out prompts are also trained on" in (pit.folder / "out/index.html").read_text()


def test_nothing_is_said_where_all_read_everything(ask):
    entries = make_entries(ask("dpo", "kto", "online_dpo"))
    assert rows_notes({entry.name: entry.rows for entry in entries}) == []


def test_who_spends_clearly_more_is_said():
    common = {"steps": 1, "generations": 0, "judgements": 0, "seconds": 1.0, "tokens_per_second": 1.0}
    costs = [
        Cost(policy=name, seed=seed, tokens=tokens, peak_memory_gib=0.0, **common)
        for name, seed, tokens in (("dpo", 0, 401), ("dpo", 1, 556), ("kto", 0, 430))
    ]
    (said,) = overspent(Budget("tokens", 400), costs)
    assert said.startswith("dpo has spent 556 of 400 tokens, 39 % more: a training ends with the step that passes")
    assert overspent(Budget(), costs) == []

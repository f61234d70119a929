"""Preference pairs: random tokens of log-normal lengths, or texts of a file; and the order in which they are read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from speed.words import Words

PROMPT_SPREAD, ANSWER_SPREAD = 0.4, 0.7
"""Standard deviations of the logarithms of the lengths."""


def lengths(random: np.random.Generator, count: int, median: int, spread: float, low: float, high: float) -> list[int]:
    """Log-normal lengths around a median, cut to [low, high] times it; at least 2 tokens."""
    drawn = median * np.exp(spread * random.standard_normal(count))
    return [int(n) for n in np.clip(drawn, max(2, low * median), high * median).round()]


def draw_pairs(count: int, *, prompt: int, answer: int, vocab: int, seed: int) -> list[dict[str, str]]:
    """Pairs of random words; a prompt has the given median, an answer too, its end-of-sequence token included."""
    random = np.random.default_rng(seed)
    prompts = lengths(random, count, prompt, PROMPT_SPREAD, 0.5, 2.0)
    answers = [lengths(random, count, answer, ANSWER_SPREAD, 0.2, 4.0) for _ in range(2)]

    given = Words(vocab)

    def words(n: int) -> str:
        return given.texts(random.integers(0, vocab - given.first, n).tolist())

    rows = []
    for p, c, r in zip(prompts, *answers, strict=True):
        row = {"prompt": words(p), "chosen": words(c - 1), "rejected": words(r - 1)}
        while row["rejected"] == row["chosen"]:  # of short answers, a few in a million
            row["rejected"] = words(r - 1)
        rows.append(row)
    return rows


def file_pairs(file: Path, folder: Path, count: int, seed: int, longest: int) -> list[dict[str, str]]:
    """Pairs of a file whose texts give the same tokens to both peers.

    Prompts are put into the chat template here. A row is left out where prompt and answer encoded together give other
    tokens than encoded apart, as one peer does each.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        given = [json.loads(line) for line in lines if line.strip()]
    rows: list[dict[str, str]] = []
    for i in np.random.default_rng(seed).permutation(len(given)):
        row = {name: given[i][name] for name in ("prompt", "chosen", "rejected")}
        if not all(isinstance(text, str) for text in row.values()):
            raise SystemExit(f"--pairs-file: {file}: prompt, chosen and rejected are texts here")
        if tokenizer.chat_template:
            chat = [{"role": "user", "content": row["prompt"]}]
            row["prompt"] = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = {name: tokenizer(text, add_special_tokens=False)["input_ids"] for name, text in row.items()}
        together = [
            tokenizer(row["prompt"] + row[name], add_special_tokens=False)["input_ids"] for name in list(row)[1:]
        ]
        apart = [ids["prompt"] + ids[name] for name in list(row)[1:]]
        if (
            together == apart
            and all(ids.values())
            and max(map(len, apart)) < longest
            and row["chosen"] != row["rejected"]
        ):
            rows.append(row)
        if len(rows) == count:
            return rows
    raise SystemExit(f"--pairs-file: {file} has {len(rows)} pairs that both peers encode alike; {count} are needed")


def write_rows(rows: list[dict[str, Any]], file: Path) -> None:
    """JSON lines."""
    with file.open("w") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")


def order(size: int, batch: int, seed: int) -> list[int]:
    """Rows in the order in which `nashtune fit` reads them in its first epoch; TRL is given them in this order."""
    from nashtune.data.order import BatchOrder

    read = BatchOrder(size=size, batch_size=batch, seed=seed)
    return [int(row) for index in range(len(read)) for row in read.batch(0, index)]

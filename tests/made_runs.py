"""Run folders and comparisons made by hand, for tests of their pages: no training, known numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "<!-- <script> {{ 7 * 7 }} {% raw %} & ' \" \u2028 ]]>",
    "\u202eright to left\u202c \x06 \U0001f600",
)
"""What a model may say."""


ROWS = {"overflow": "drop", "template": "chat", "limit": None, "labels": "hard", "ranked_pairs": "best_worst"}


def config(tiny: Path, spec: str, kind: str, **spec_parts: Any) -> dict[str, Any]:
    about = {
        "title": f"Title of {spec} <b>",
        "paper": "arXiv:2305.18290",
        "kind": kind,
        "equation": "−log σ(β(h_w − h_l)) & more",
        "conventions": "sums over completion tokens",
        "reduces_to": "log 2 at the start",
        "plugin": "dpo",
    }
    data = {"train": "train.jsonl", "validation": None, "test": None, "max_length": 128, "max_prompt_length": None}
    return {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "max_steps": None},
        "data": {**data, **ROWS},
        "policy": {"path": str(tiny)},
        "spec": {"name": spec, "about": about, **spec_parts},
    }


def write_run(
    folder: Path,
    settings: Mapping[str, Any],
    metrics: Sequence[Mapping[str, float]],
    report: Mapping[str, Any] | None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
    log = folder / "logs" / "attempt_0"
    log.mkdir(parents=True)
    names = sorted({name for row in metrics for name in row})
    with (log / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(metrics)
    if report is not None:
        (folder / "report.json").write_text(json.dumps(report))
    return folder


def base_report(spec: str, steps: int, **parts: Any) -> dict[str, Any]:
    speed = {
        "tokens_per_second": 1234.4,
        "positions_per_second": 2000.0,
        "padding_share": 0.25,
        "training_seconds": 75.0,
        "peak_memory_gib": 1.5,
    }
    return {
        "spec": spec,
        "steps": steps,
        "held_out": {},
        "sampled_kl": None,
        "beta": None,
        "throughput": speed,
        "data": {},
        **parts,
    }


def dpo_metrics(steps: int) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        fell = 0.7 * 0.98**step
        rows.append(
            {
                "step": step,
                "train/loss": fell + 0.05 * (step % 3),
                "train/accuracy": min(1.0, 0.5 + step / (2 * steps)),
                "train/margin": step / steps,
                "train/beta": 0.1,
                "train/reward_chosen": step / (2 * steps),
                "train/reward_rejected": -step / (2 * steps),
            }
        )
    rows.append({"step": steps, "val/loss": 0.4, "val/accuracy": 0.75, "val/margin": 0.8, "val/kl_to_reference": 0.02})
    return rows


def offline_run(folder: Path, tiny: Path, *, steps: int = 60, long: int = 0) -> Path:
    """A finished DPO run with answers before and after, held-out rows and hostile texts in all of them.

    So many rows, each before a shorter one, are too long for the run, which has left them out.
    """
    rows = [
        {
            "prompt": f"Prompt {i} {HOSTILE[i % len(HOSTILE)]}",
            "chosen": f"good {i} {HOSTILE[0]}",
            "rejected": f"bad {i}",
        }
        for i in range(45)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    held_out = folder.parent / "held-out.jsonl"
    rows = [{**rows[i], "chosen": "long " * 400} for i in range(long)] + rows
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = config(tiny, "dpo", "offline", kl={"name": "fixed", "beta": 0.1})
    settings["data"] |= {"validation": str(held_out), "max_length": 512}
    report = base_report(
        "dpo",
        steps,
        held_out={"loss": 0.4, "accuracy": 0.75, "margin": 0.8, "kl_to_reference": 0.02},
        sampled_kl={"k1": -0.01, "k3": 0.03, "completions": 8.0},
        beta=0.1,
        weights=WEIGHTS,
        data={"validation": tokenised(tiny, held_out, settings["data"])},
    )
    write_run(folder, settings, dpo_metrics(steps), report)
    samples = [
        {"prompt": f"Question {i} {HOSTILE[i]}", "before": f"before {i} {HOSTILE[i]}", "after": f"after {i} needle{i}"}
        for i in range(len(HOSTILE))
    ]
    (folder / "samples.json").write_text(json.dumps(samples))
    (folder / "environment.json").write_text("{}")
    (folder / "environment.1.json").write_text(
        json.dumps(
            {
                "nashtune": "0.1.0",
                "versions": {"torch": "2.13.0", "python": "3.11.7"},
                "machine": {"processor": "a <processor>", "cores": 2},
                "command": ["nashtune", "fit", "--spec", "dpo"],
                "attempt": 0,
            }
        )
    )
    return folder


WEIGHTS = "sha256:0123456789abcdef"


def tokenised(tiny: Path, source: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a run reports of its held-out pairs."""
    from nashtune.data.lengths import Limits
    from nashtune.data.split_reader import SplitReader
    from nashtune.models.preflight import load_tokenizer

    same = {name: data[name] for name in ("template", "labels", "ranked_pairs", "limit")}
    reader = SplitReader(
        tokenizer=load_tokenizer(str(tiny)),
        kind="pairs",
        reads="logprobs",
        uses_margin=False,
        completion_room=0,
        limits=Limits(max_length=data["max_length"], overflow=data["overflow"]),
        **same,
    )
    return reader.rows(str(source), "validation")[1].as_dict()


def game_run(folder: Path, tiny: Path, *, rounds: int = 3, prompts: int = 10) -> Path:
    """A finished game: two answers to each prompt in each round, the longer one preferred in every second pair."""
    from transformers import AutoTokenizer

    from nashtune.interfaces.pairing import Paired
    from nashtune.interfaces.sampler import Completion
    from nashtune.journal.records import write_completions, write_pairs
    from nashtune.journal.store import Journal
    from nashtune.samplers.recorded_journal import write_prompts

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    journal = Journal(folder / "journal")
    for round in range(1, rounds + 1):
        asked = [f"<|system|>Be kind.\n<|user|>Prompt {i} of round {round}<|assistant|>" for i in range(prompts)]
        write_prompts(journal, round, [list(range(prompts))], [tokenizer.encode(text) for text in asked])
        drawn = [
            Completion(
                prompt=i, k=k, token_ids=tuple(range(10, 13 + 4 * k)), token_logp=(), finish="stop", version="start"
            )
            for i in range(prompts)
            for k in range(2)
        ]
        texts = [f"round {round} prompt {one.prompt} answer {one.k} {HOSTILE[one.k]}" for one in drawn]
        write_completions(journal, round, "policy", 0, drawn, texts)
        pairs = [(i, Paired(chosen=i % 2, rejected=1 - i % 2, p_chosen=0.5 + i / 20)) for i in range(prompts)]
        write_pairs(journal, round, pairs, {})
    names = ["start", *(f"main@{round}" for round in range(1, rounds + 1))]
    report = base_report("onpo", 2 * rounds, rounds=[_round(i) for i in range(1, rounds + 1)], win_rates=_wins(names))
    _answers(folder, names)
    metrics = [
        {
            "step": step,
            "train/loss": 2500.0 - step,
            "train/accuracy": 0.5,
            "train/margin": 0.0,
            "train/round": 1 + (step - 1) // 2,
        }
        for step in range(1, 2 * rounds + 1)
    ]
    return write_run(
        folder, config(tiny, "onpo", "game", sampler={"name": "policy", "max_new_tokens": 8}), metrics, report
    )


def _round(number: int) -> dict[str, Any]:
    return {
        "round": number,
        "prompts": 10,
        "completions": 20,
        "tokens": 180,
        "truncated": 5,
        "score": None,
        "pairs": 10,
        "dropped": {"tie": number},
        "loss": 2500.0 / number,
        "accuracy": 0.5,
        "judgements": 10,
        "steps": 2,
    }


def _wins(names: Sequence[str]) -> dict[str, Any]:
    """Each policy beats the ones before it with 0.6, give or take 0.05; the last two are not told apart."""
    m = len(names)
    rates = [[0.5 if i == j else 0.6 if i > j else 0.4 for j in range(m)] for i in range(m)]
    rates[m - 1][m - 2], rates[m - 2][m - 1] = 0.52, 0.48
    mean = [(sum(row) - 0.5) / (m - 1) for row in rates]
    return {
        "policies": list(names),
        "rates": rates,
        "low": [[rate - 0.05 for rate in row] for row in rates],
        "high": [[rate + 0.05 for rate in row] for row in rates],
        "average": mean,
        "average_low": [rate - 0.04 for rate in mean],
        "average_high": [rate + 0.04 for rate in mean],
        "comparisons": 40,
        "prompts": 4,
        "identical": 2,
        "disagreements": 0,
        "unanswered": 0,
        "resamples": 2000,
        "level": 0.95,
        "kl_from_start": {name: {"k1": 0.1 * i, "k3": 0.12 * i} for i, name in enumerate(names) if i},
    }


def _answers(folder: Path, names: Sequence[str]) -> None:
    import pyarrow as pa

    from nashtune.interfaces.sampler import Completion
    from nashtune.journal.records import write_completions
    from nashtune.journal.store import Journal

    journal = Journal(folder / "answers")
    for number, name in enumerate(names, start=1):
        drawn = [
            Completion(prompt=i, k=0, token_ids=(1, 2, 3), token_logp=(), finish="length", version=name)
            for i in range(4)
        ]
        write_completions(journal, number, "policy", 0, drawn, [f"{name} says {i} {HOSTILE[i]}" for i in range(4)])
        asked = {
            "prompt": pa.array(range(4), pa.int32()),
            "token_ids": pa.array([[1]] * 4, pa.list_(pa.int32())),
            "text": pa.array([f"Held-out {i}? {HOSTILE[i]}" for i in range(4)]),
        }
        journal.write_table(number, "prompts", asked)
        journal.write_table(number, "answers-key", {"key": ["0" * 64], "policy": [name]})

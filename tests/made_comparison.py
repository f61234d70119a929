"""The folder of a comparison made by hand: four policies, two seeds, known win rates."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import yaml

from made_runs import HOSTILE
from nashtune.comparison.answers import Answer
from nashtune.comparison.budget import Budget
from nashtune.comparison.costs import Cost, spent_by_policy
from nashtune.comparison.judgements import Score, Verdict
from nashtune.comparison.rate import rate
from nashtune.comparison.tabulated import judged_arrays, write_answers, write_verdicts
from nashtune.data.prompts import PromptRow

POLICIES = ("start", "dpo", "ipo", "onpo")
STRENGTH = {"start": 0.0, "dpo": 1.0, "ipo": 0.7, "onpo": 1.6}
LENGTH = {"start": 20, "dpo": 34, "ipo": 24, "onpo": 26}
KL = {"start": 0.0, "dpo": 1.4, "ipo": 0.5, "onpo": 0.9}

LONG = "longer than data.max_length"
READ = {
    "unit": "pairs",
    "rows": 100,
    "read": 100,
    "used": 40,
    "left_out": {LONG: 60, "other": 0},
    "distinct_prompts": 31,
}


def comparison(folder: Path, *, prompts: int = 24, seeds: int = 2, rewards: bool = True) -> Path:
    """`nashtune compare` leaves such a folder, with its trainings, which a page does not read."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = [
        PromptRow(prompt_ids=(1,), prompt=text, prompt_text=text, where=f"held.jsonl:{n + 1}")
        for n in range(prompts)
        for text in [f"Prompt {n} {HOSTILE[n % len(HOSTILE)]}"]
    ]
    answers, scores, verdicts = [], [], []
    for seed in range(seeds):
        worth = {}
        for name in POLICIES:
            for n in range(prompts):
                worth[name, n] = STRENGTH[name] + float(random.normal())
                ratio = KL[name] * (1.0 + 0.3 * float(random.normal()))
                answers.append(
                    Answer(
                        policy=name,
                        seed=seed,
                        prompt=n,
                        text=f"{name} with seed {seed} answers {n} {HOSTILE[(n + 1) % len(HOSTILE)]}",
                        tokens=LENGTH[name] + int(random.integers(-8, 9)),
                        finished=n % 3 > 0,
                        logp=-20.0 + ratio,
                        logp_start=-20.0,
                        kl=max(ratio, 0.0),
                    )
                )
                if rewards:
                    scores.append(Score(policy=name, seed=seed, prompt=n, reward=worth[name, n], variance=None))
        for n in range(prompts):
            for a, b in combinations(POLICIES, 2):
                p = 1 / (1 + float(np.exp(worth[b, n] - worth[a, n])))
                for order in ("given", "swapped"):
                    verdicts.append(Verdict(prompt=n, first=a, second=b, seed=seed, order=order, p=p))
    write_answers(folder / "answers.parquet", answers, scores, rows)
    write_verdicts(folder / "judgements.parquet", verdicts, rows)
    ratings = rate(judged_arrays(answers, verdicts, scores, temperature=1.0))
    costs = [
        Cost(
            policy=name,
            seed=seed,
            steps=48,
            tokens=123456,
            generations=96 if name == "onpo" else 0,
            judgements=96 if name == "onpo" else 0,
            seconds=61.5,
            wall_seconds=95.0,
            lr_share=1.0,
            tokens_per_second=2007.4,
            peak_memory_gib=1.25,
        )
        for name in POLICIES[1:]
        for seed in range(seeds)
    ]
    result = {
        "name": "dpo-ipo-onpo",
        "specs": list(POLICIES[1:]),
        "budget": {"kind": "steps", "amount": 64},
        "judge": {"name": "vader"},
        "trained_on_judge": ["onpo"],
        "spent": spent_by_policy(Budget(kind="steps", amount=64), costs),
        "ratings": ratings.as_dict(),
        "costs": [one.as_dict() for one in costs],
        "warnings": ["ipo has spent 48 of 64 steps, and is compared all the same"],
        "remarks": [
            "ipo has spent 48 of 64 steps, and is compared all the same",
            "data.prompts_per_round is not for dpo: it draws no completions",
            "data.prompts_per_round is not for ipo: it draws no completions",
        ],
        "versions": {"nashtune": "0.1.0", "torch": "2.13.0"},
        "phases": {"training_s": 570.0, "sampling_s": 130.0, "judging_s": 20.0, "total_s": 720.0},
        "data": {
            "train": "train.jsonl",
            "validation": "held-out.jsonl",
            "specs": {name: READ | {"fingerprint": "5" * 64} for name in ("dpo", "ipo")}
            | {"onpo": READ | {"unit": "prompts", "used": 90, "left_out": {LONG: 10}, "fingerprint": "6" * 64}},
            "held_out": prompts,
            "held_out_different": prompts + 7,
            "held_out_also_trained_on": 3,
            "sources": {"data.train": "0" * 64},
        },
        "differs": [
            {"setting": "kl.beta", "values": {"dpo": 0.1}},
            {"setting": "loss.name", "values": {"dpo": "dpo", "ipo": "ipo", "onpo": "onpo"}},
            {"setting": "oracle.raters", "values": {"onpo": ["sentiment", "brevity"]}},
        ],
        "made": {
            "date": "2026-11-23T01:29:30+00:00",
            "processor": f"a processor {HOSTILE[1]}",
            "threads": 2,
            "devices": [],
            "command": ["nashtune", "compare", "dpo", "ipo", "onpo"],
            "model": "demo:smollm2",
            "adapter": "LoRA, r 8",
        },
    }
    (folder / "comparison.json").write_text(json.dumps(result))
    request = {
        "name": "dpo-ipo-onpo",
        "specs": {name: {"name": name, "loss": {"name": name}} for name in POLICIES[1:]},
        "run": {"data": {"train": "train.jsonl"}},
        "seeds": list(range(seeds)),
        "budget": {"steps": 64},
        "prompts": None,
        "judge": {"name": "vader"},
        "sources": {"data.train": "0" * 64},
        "versions": {"nashtune": "0.1.0"},
    }
    (folder / "comparison.yaml").write_text(yaml.safe_dump(request, sort_keys=False))
    return folder

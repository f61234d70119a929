"""Pages of runs that `nashtune fit` has just made: what it writes is what pages read."""

from __future__ import annotations

import json
import re
from typing import Any

from lab import Lab, pair_rows
from nashtune.html.run_page import render


def data_of(page: str, name: str) -> Any:
    (block,) = re.findall(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(block)


def test_a_run_on_pairs(lab: Lab):
    page = render(lab.fit("--samples.prompts", "2", "--samples.max_new_tokens", "4"))
    answers = data_of(page, "answers")
    assert answers["policies"] == ["before", "after"]
    assert answers["texts"][answers["entries"][0]["q"]].startswith("Do you like")
    assert len(data_of(page, "pairs")["items"]) == 6
    assert "held-out accuracy" in page and '<th scope="row">versions: torch</th>' in page


def test_a_game(lab: Lab):
    lab.become_game()
    samples = ("--samples.prompts", "3", "--samples.max_new_tokens", "6")
    page = render(lab.fit("--spec.schedule.rounds", "2", *samples, spec="online_dpo"))
    pairs, answers = data_of(page, "pairs"), data_of(page, "answers")
    assert pairs["rounds"] == [1, 2] and pairs["begin"].endswith("<|user|>") and pairs["end"] == "<|assistant|>"
    assert all(pairs["texts"][item["q"]].startswith("Do you like") for item in pairs["items"])
    asked = [answers["texts"][entry["q"]] for entry in answers["entries"]]
    assert asked == [row["prompt"] for row in pair_rows(3)]
    assert answers["policies"][0] == "start" and 'id="wins"' in page

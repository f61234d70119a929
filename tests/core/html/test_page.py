from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from made_runs import HOSTILE
from nashtune.html.browser import Answer, Browser, Item
from nashtune.html.page import environment


def browser_page(text: str) -> str:
    found = Browser("pairs", "Pairs.", [Item(1, text, [Answer("chosen", text)], 0.5, "longer answer")], 1)
    source = '{% import "figure.html.j2" as show %}{{ show.browser(found) }}'
    return environment().from_string(source).render(found=found)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_models_say_stays_data(text: str):
    page = browser_page(text)
    (block,) = re.findall(r'<script type="application/json" id="pairs-data">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&'") & set(block)
    data = json.loads(block)
    assert data["texts"][data["items"][0]["q"]] == text
    assert page.count("<script") == 1 and "<img" not in page and "49" not in page


def test_numbers_that_json_does_not_have_are_none():
    found = Browser("pairs", "", [Item(1, "q", [], float("nan"))], 1)
    assert found.as_data()["items"][0]["p"] is None
    with pytest.raises(ValueError, match="Out of range"):
        environment().from_string("{{ x|tojson }}").render(x=float("nan"))


def test_the_policy_names_the_one_script_and_nothing_from_outside(tmp_path, tiny):
    from made_runs import offline_run
    from nashtune.html.run_page import render

    page = render(offline_run(tmp_path / "run", tiny))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    parts = dict(part.split(" ", 1) for part in policy.replace("&#39;", "'").split("; "))
    assert parts == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.findall(r'(?:src|srcset|action|poster)="|url\(|@import', page)
    links = {link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith("#")}
    assert links == {"data:,", "https://arxiv.org/abs/2305.18290"}  # the paper opens where a reader clicks


def test_prompts_are_shown_without_the_template_that_all_of_them_share():
    items = [Item(1, f"<|system|>Be kind.\n<|user|>Which {word}?<|assistant|>", []) for word in ("colour", "cat")]
    data = Browser("pairs", "", items, 2).as_data()
    assert data["texts"] == ["Which colour?", "Which cat?"]
    assert (data["begin"], data["end"]) == ("<|system|>Be kind.\n<|user|>", "<|assistant|>")

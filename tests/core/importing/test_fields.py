"""Each table against every field of the tool's own config classes: none is unknown, and defaults are the tool's."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from nashtune.importing.entries import UNSET, Table
from nashtune.importing.method import word
from nashtune.importing.tables import load_table

HERE = Path(__file__).parent
FILES = {"llamafactory": "llamafactory-0.9.5.fields.json", "axolotl": "axolotl-0.19.0.fields.json"}
FIELDS: dict[str, dict[str, list[str]]] = {
    tool: json.loads((HERE / file).read_text())["fields"] for tool, file in FILES.items()
}
ELSEWHERE = {
    "llamafactory": {
        "flash_attn": "an enum, whose value is auto",
        "optim": "a name for adamw_torch_fused",
    },
    "axolotl": {
        "adam_beta1": "none, so that transformers' default holds",
        "adam_beta2": "none, so that transformers' default holds",
        "max_grad_norm": "none, so that transformers' default holds",
        "seed": "none, so that transformers' default holds",
        "warmup_ratio": "none, and the builder of its trainers takes 0.03",
        "rl_beta": "none, so that TRL's default holds",
        "orpo_alpha": "none, so that TRL's default holds",
        "cpo_alpha": "none, so that TRL's default holds",
        "kto_desirable_weight": "none, and the builder takes 1",
        "kto_undesirable_weight": "none, and the builder takes 1",
        "datasets.split": "none, and the first split that there is of train is read",
        "datasets.path": "of made-up data sets alone",
        "test_datasets.path": "of made-up data sets alone",
        "trust_remote_code": "none, which means false",
        "trl": "made empty",
    },
}
"""Fields whose default in a config class is not what holds in the end, with what does."""


def default(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


@pytest.mark.parametrize("tool", FILES)
def test_no_field_of_the_tool_is_unknown(tool: str):
    known = load_table(tool).names()
    assert len(FIELDS[tool]) > 300
    assert sorted(set(FIELDS[tool]) - known) == []


@pytest.mark.parametrize("tool", FILES)
def test_a_default_of_the_table_is_the_tools(tool: str):
    table = load_table(tool)
    differing = set()
    for key, (_, text) in FIELDS[tool].items():
        for entries in (table.keys, *(method.keys for method in table.methods)):
            entry, theirs = entries.get(key), default(text)
            if entry is None or theirs == "required":
                continue
            silent = entry.default is UNSET and (entry.same or entry.paths or entry.values) and theirs is not None
            if (entry.default is not UNSET and entry.default != theirs) or (silent and theirs not in entry.same):
                differing.add(key)
    assert differing == set(ELSEWHERE[tool])


@pytest.mark.parametrize("key", ["stage", "pref_loss"])
def test_every_loss_of_llamafactory_is_a_method(key: str):
    allowed = re.search(r"Literal\[(.*?)\]", FIELDS["llamafactory"][key][0])
    assert allowed is not None
    named = _said(load_table("llamafactory"), key)
    assert {part.strip("' ") for part in allowed[1].split(",")} == named


def _said(table: Table, key: str) -> set[str]:
    values = (method.when[key] for method in table.methods if key in method.when)
    return {word(one) for value in values for one in (value if isinstance(value, list) else [value])}

"""`about.reduces_to`: a list of entries, each with its claim, or a message that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.spec.reductions import Reduction, reduction_text, reductions
from nashtune.spec.resolve import resolve
from nashtune.spec.schema import spec_schema

Write = Callable[[str], Path]
GOOD = "{method: dpo, exact: true, at: {kl.beta: 0.1}}"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def spec(reduces_to: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(f"base: dpo\nabout:\n  title: mine\n  reduces_to: {reduces_to}\n")
        return path

    return spec


def test_entries_are_read_and_stay_as_they_were_in_a_run(write: Write):
    spec = resolve(str(write(f"[{GOOD}, {{method: sft, exact: false, when: far away}}]")))
    assert reductions(spec.about) == [
        Reduction("dpo", True, {"kl.beta": 0.1}),
        Reduction("sft", False, when="far away"),
    ]
    assert resolve(json.loads(json.dumps(spec.to_dict()))).about == spec.about
    assert reduction_text(spec.about) == "exactly dpo at kl.beta: 0.1 here; nearly sft, far away"


def test_none_and_text_of_an_older_run_claim_nothing(write: Write, capsys: pytest.CaptureFixture[str]):
    assert reductions(resolve(str(write("none"))).about) == reductions(resolve("dpo").about) == []
    older = write("log 2 at the start")
    assert reductions(resolve(str(older)).about) == []
    assert reduction_text(resolve(str(older)).about) == "log 2 at the start"
    assert main(["show", str(older)]) == 0
    assert "Reduces to\n  log 2 at the start" in capsys.readouterr().out


def test_show_says_which_of_the_two(capsys: pytest.CaptureFixture[str]):
    assert main(["show", "onpo"]) == 0
    said = capsys.readouterr().out
    assert (
        "Is exactly\n  ipo_sum with loss.tau: 0.01, at loss.eta: 100 here, in the first update of round 1 (τ = 1/η)\n"
        in said
    )
    assert main(["show", "onpo_virtual"]) == 0
    assert "Is nearly\n  onpo, equal where each update reaches" in capsys.readouterr().out
    assert main(["show", "dpo"]) == 0
    said = capsys.readouterr().out
    assert "Known values\n  log 2 at π = π_ref" in said and "Is exactly" not in said


@pytest.mark.parametrize(
    ("reduces_to", "expected"),
    [
        ("3", "expected none, or a list such as"),
        ("[]", "expected none, or a list such as"),
        ("[dpo]", "entry 1: expected a mapping with method and exact, found 'dpo'"),
        (f"[{GOOD}, {{exact: true, at: {{kl.beta: 1.0}}}}]", "entry 2: needs method: text"),
        ("[{method: dpo, when: x}]", "entry 1: needs exact: true or false"),
        ("[{method: dpo, exact: perhaps, when: x}]", "entry 1: exact: expected true or false, found 'perhaps'"),
        ("[{method: '', exact: true, when: x}]", "entry 1: method: expected text"),
        ("[{method: dpo, exact: true, wen: x}]", "entry 1: 'wen' is not known; did you mean 'when'?"),
        ("[{method: dpo, exact: true}]", "entry 1: says of dpo nothing but its name; add at, with or when"),
        ("[{method: dpo, exact: true, at: kl.beta}]", "entry 1: at: expected settings by dotted key"),
        ("[{method: dpo, exact: true, at: {}}]", "entry 1: at: expected settings by dotted key"),
        ("[{method: dpo, exact: true, with: {lss.tau: 1}}]", "entry 1: with: 'lss.tau' begins with no section"),
        ("[{method: dpo, exact: true, with: {loss.: 1}}]", "'loss.' ends in a dot; write SECTION.OPTION"),
        ("[{method: dpo, exact: true, with: {loss: {tau: 1}}}]", "'loss': expected one value"),
    ],
)
def test_what_is_wrong_is_named_with_its_entry(write: Write, reduces_to: str, expected: str):
    path = write(reduces_to)
    with pytest.raises(InputError) as refused:
        resolve(str(path))
    assert f"{path}:4: about.reduces_to: " in str(refused.value) and expected in str(refused.value)


def test_the_schema_has_the_same_keys():
    about: dict[str, Any] = spec_schema()["else"]["properties"]["about"]["properties"]
    entry = about["reduces_to"]["anyOf"][1]["items"]
    assert set(entry["properties"]) == {"method", "exact", "at", "with", "when"}
    assert entry["required"] == ["method", "exact"] and not entry["additionalProperties"]

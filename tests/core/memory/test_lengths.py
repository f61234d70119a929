from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from nashtune.data.messages import Message
from nashtune.data.parse import Example, Pair, Ranked
from nashtune.data.template import make_template
from nashtune.memory import lengths as module
from nashtune.memory.lengths import Measure
from nashtune.models.locate import ModelFolder


@pytest.fixture
def folder(tiny):
    return ModelFolder(path=tiny, base=tiny, tokenizer=tiny)


def pair(prompt, chosen, rejected):
    return Pair(prompt=prompt, chosen=chosen, rejected=rejected, p_chosen=None, where="x:1")


def measured(rows, folder, *, chat=False):
    measure = Measure()
    for row in rows:
        measure.add(row)
    found = measure.lengths(folder, chat=chat)
    assert found is not None
    return found


def test_plain_rows_have_the_tokens_that_training_gives_them(folder) -> None:
    template = make_template("plain", AutoTokenizer.from_pretrained(folder.tokenizer))
    rows = [pair("What?", "Yes, indeed.", "No."), pair("Ünïcode " * 5, "äöü", "x" * 30)]
    found = measured(rows, folder)
    rendered = [template.render(row.prompt, (row.chosen, row.rejected)) for row in rows]
    answers = template.encode_completions(rendered)
    assert found.prompt.tolist() == [len(ids) for ids in template.encode_prompts(rendered)]
    assert found.longest.tolist() == [max(map(len, ids)) for ids in answers]
    assert found.total.tolist() == [sum(map(len, ids)) for ids in answers]
    assert found.completions.tolist() == [2, 2]


def test_a_chat_template_adds_its_tokens(folder) -> None:
    template = make_template("chat", AutoTokenizer.from_pretrained(folder.tokenizer))
    talk = (Message("system", "Be brief."), Message("user", "Why?"))
    rows = [pair("Why?", "Because.", "So."), pair(talk, "Because.", "So.")]
    found = measured(rows, folder, chat=True)
    rendered = [template.render(row.prompt, (row.chosen, row.rejected)) for row in rows]
    assert found.prompt.tolist() == pytest.approx([len(ids) for ids in template.encode_prompts(rendered)], abs=2)


def test_other_rows_are_converted_by_the_ratio_of_those_that_are_encoded(folder, monkeypatch) -> None:
    monkeypatch.setattr(module, "FIRST", 2)
    monkeypatch.setattr(module, "LONGEST", 2)
    rows = [pair("a" * n, "b" * n, "c") for n in (10, 20, 30, 90, 40, 80)]
    assert measured(rows, folder).prompt.tolist() == [10, 20, 30, 90, 40, 80]  # a token is a byte
    assert measured(rows, folder).longest.tolist() == [11, 21, 31, 91, 41, 81]


def test_every_kind_of_row(folder) -> None:
    example = Example(prompt="ab", completion="cde", desirable=True, where="x:1")
    ranked = Ranked(prompt="ab", responses=("c", "defg", "h"), scores=(1.0, 2.0, 3.0), where="x:2")
    found = measured([example, ranked], folder)
    assert found.completions.tolist() == [1, 3]
    assert found.longest.tolist() == [4, 5]
    assert found.total.tolist() == [4, 9]


def test_without_a_tokenizer_file_nothing_is_known(tmp_path) -> None:
    measure = Measure()
    measure.add(pair("a", "b", "c"))
    assert measure.lengths(ModelFolder(path=tmp_path, base=tmp_path, tokenizer=tmp_path), chat=False) is None

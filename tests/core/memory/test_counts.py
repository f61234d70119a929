from __future__ import annotations

import shutil

import pytest
from tokenizers import Tokenizer

from nashtune.cache import cache_root
from nashtune.memory.counts import count_tokens
from nashtune.models.locate import ModelFolder


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path / "cache"))
    copy = shutil.copytree(tiny, tmp_path / "model")
    return ModelFolder(path=copy, base=copy, tokenizer=copy)


@pytest.fixture
def loads(monkeypatch):
    """How often a tokenizer is loaded."""
    seen, load = [], Tokenizer.from_file

    class Counted:
        @staticmethod
        def from_file(path):
            seen.append(path)
            return load(path)

    monkeypatch.setattr("tokenizers.Tokenizer", Counted)
    return seen


def test_the_second_count_needs_no_tokenizer(folder, loads) -> None:
    texts = ["one", "", "twenty-two"]
    first = count_tokens(texts, folder, chat=True)
    assert first[0] == [3, 0, 10] and first[1] > 0  # a token is a byte
    assert count_tokens(texts, folder, chat=True) == first
    assert len(loads) == 1


def test_other_texts_files_and_templates_are_counted_anew(folder, loads) -> None:
    assert count_tokens(["ab"], folder, chat=True)[1] > 0
    assert count_tokens(["ab"], folder, chat=False) == ([2], 0)
    assert count_tokens(["abc"], folder, chat=False) == ([3], 0)
    file = folder.tokenizer / "tokenizer.json"
    file.write_text(file.read_text() + "\n")
    assert count_tokens(["abc"], folder, chat=False) == ([3], 0)
    assert len(loads) == 4


@pytest.mark.parametrize("content", ["", "[1]", '{"tokens": [1]}', '{"tokens": [1, 2], "turn": 0}'])
def test_a_broken_file_is_made_again(folder, loads, content) -> None:
    count_tokens(["abc"], folder, chat=False)
    (file,) = (cache_root() / "token-counts").iterdir()
    file.write_text(content)
    assert count_tokens(["abc"], folder, chat=False) == ([3], 0)
    assert count_tokens(["abc"], folder, chat=False) == ([3], 0)
    assert len(loads) == 2


def test_a_cache_that_cannot_be_written_is_done_without(folder, loads) -> None:
    cache_root().write_text("a file, not a folder")
    assert count_tokens(["abc"], folder, chat=False) == ([3], 0)
    assert count_tokens(["abc"], folder, chat=False) == ([3], 0)
    assert len(loads) == 2

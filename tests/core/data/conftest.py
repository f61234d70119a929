from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("NASHTUNE_CACHE", str(folder))
    return folder


@pytest.fixture
def tokenizer(tiny: Path) -> Any:
    """The tiny model's tokenizer: a token per byte, EOS `</s>`, a chat template; fresh for each test."""
    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes rows (or raw lines) to a JSON lines file and gives its path."""

    def write_rows(rows: Sequence[Any], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    return write_rows


@pytest.fixture
def pairs(write: Callable[..., str]) -> Callable[[int], str]:
    """Writes n different preference rows."""
    return lambda n: write([{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(n)])

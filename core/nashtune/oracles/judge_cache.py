"""Answers of a judge on disk, by content: a question that was answered once is not asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.files import atomic_path


class JudgeCache:
    """A folder of answers, one file each, whole or not there. Threads and processes may share it.

    Args:
        folder: Made with the first answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, request: Mapping[str, Any]) -> str | None:
        """The answer to a request, or None where there is none that can be read."""
        try:
            entry = json.loads(self._file(request).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(entry, dict) or entry.get("request") != request or not isinstance(entry.get("answer"), str):
            return None
        return str(entry["answer"])

    def put(self, request: Mapping[str, Any], answer: str, asked: int) -> None:
        """Keep an answer.

        Args:
            request: What was asked first: model, messages and sampling options; no address and no key.
            answer: What the judge said.
            asked: How often it was asked until it said that.

        Raises:
            InputError: the folder cannot be written to.
        """
        file = self._file(request)
        entry = {"request": request, "answer": answer, "asked": asked}
        try:
            with atomic_path(file, shared=True) as partial:
                partial.write_text(json.dumps(entry, ensure_ascii=False, indent=1), encoding="utf-8")
        except OSError as error:
            raise InputError(f"oracle.cache: {file} cannot be written: {error.strerror or error}") from error

    def _file(self, request: Mapping[str, Any]) -> Path:
        text = json.dumps(request, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"

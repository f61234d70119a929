"""The file beside a preference model's weights: how it was asked in training.

`nashtune_preference.json` says what a causal LM's folder does not: the question, how it becomes tokens, and which two
tokens answer it. A preference model that is asked otherwise gives numbers that look like preferences.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from nashtune.data.comparisons import ANSWERS, QUESTION
from nashtune.data.template import TemplateName
from nashtune.errors import InputError
from nashtune.models.locate import read_json

PREFERENCE_FILE = "nashtune_preference.json"


@dataclass(frozen=True, kw_only=True)
class PreferenceFile:
    """What `nashtune_preference.json` says.

    Args:
        template: "chat": the question is a message of the user, and the answer token is the first of the assistant's
            turn; "plain": the token after the question.
        question: The text, with {prompt}, {first} and {second}.
        answers: What says that the first answer is better, and what says that the second is.
        max_length: Tokens that a question with its answer token might have in training; None where nothing is known.
    """

    template: TemplateName = "chat"
    question: str = QUESTION
    answers: tuple[str, str] = ANSWERS
    max_length: int | None = None

    def write(self, folder: Path) -> None:
        """Beside the weights."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / PREFERENCE_FILE).write_text(text + "\n", encoding="utf-8")


def read_preference_file(folder: Path, option: str) -> PreferenceFile | None:
    """The file of a folder; None where there is none, as in models from elsewhere.

    Raises:
        InputError: it cannot be read, or is not what nashtune writes.
    """
    file = folder / PREFERENCE_FILE
    if not file.is_file():
        return None
    content = read_json(file, option)
    try:
        found = PreferenceFile(**{**content, "answers": cast("tuple[str, str]", tuple(content["answers"]))})
    except (TypeError, KeyError) as error:
        raise InputError(f"{option}: {file} is not what nashtune writes: {error}") from error
    if found.template not in ("chat", "plain"):
        raise InputError(f"{option}: {file} names the template {found.template!r}; allowed: chat, plain")
    return found

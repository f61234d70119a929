"""A user's own bandit, from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nashtune.bandits.bandit import Arms, make_arms
from nashtune.bandits.json_file import read_object
from nashtune.errors import InputError

KEYS = ("name", "rewards", "sigma", "reference", "estimate", "members")
NEEDED = ("rewards", "sigma", "reference")


def is_bandit(source: str) -> bool:
    """Whether `--game` names a JSON file with the keys of a bandit; a file that cannot be read is none."""
    file = Path(source).expanduser()
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "matrix" not in found and bool({"rewards", "sigma", "reference"} & set(found))


def read_bandit(source: str) -> list[Arms]:
    """Read and check a bandit.

    The file is an object {"rewards": [...], "sigma": [...], "reference": [...]}, each a list with one number per arm,
    or a list of such lists, one per prompt. Optional: `estimate`, the rewards that the policy is trained on; `members`,
    one list per ensemble member (with several prompts, such lists for each prompt); `name`.

    Returns:
        The prompts.

    Raises:
        InputError: says which key, prompt and arm.
    """
    file, found = read_object(source, expected=", ".join(NEEDED), keys=KEYS, what="a bandit")
    for key in NEEDED:
        if key not in found:
            raise InputError(
                f"{file}: '{key}' is missing; a bandit has {', '.join(NEEDED)}, each with one number per arm"
            )
    name = str(found.pop("name", file.stem))
    if not isinstance(found["rewards"], list) or not found["rewards"]:
        raise InputError(f"{file}: rewards: expected a list of numbers, one per arm, or one such list per prompt")
    if not isinstance(found["rewards"][0], list):
        return [make_arms(name, **found)]
    return _prompts(file, name, found)


def _prompts(file: Path, name: str, found: dict[str, Any]) -> list[Arms]:
    prompts = len(found["rewards"])
    for key, values in found.items():
        if not isinstance(values, list) or len(values) != prompts or not all(isinstance(part, list) for part in values):
            raise InputError(
                f"{file}: rewards has {prompts} prompts, and '{key}' is not a list of as many lists; with several "
                "prompts every key has one list per prompt"
            )
    return [
        make_arms(f"{name}[{number}]", **{key: values[number] for key, values in found.items()})
        for number in range(prompts)
    ]

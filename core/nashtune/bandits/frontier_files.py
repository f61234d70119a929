"""A user's own gold rewards and proxies, from a JSON file.

Legend: N = answers of a prompt, K = reward models.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nashtune.bandits.frontier import Answers
from nashtune.bandits.json_file import read_object
from nashtune.errors import InputError
from nashtune.games.matrices import Array

KEYS = ("gold", "proxies", "reference", "sampled", "name")


def read_answers(source: str) -> tuple[str, list[Answers]]:
    """Read and check a file of gold rewards and proxies.

    A JSON object {"gold": [...], "proxies": [[...], ...]}, one list of scores per reward model; with several prompts a
    list of such lists for each. Optional: `reference`, probabilities of the answers (default: all alike); `sampled`:
    true where the answers are a sample of the policy's and not all it can say; `name`.

    Raises:
        InputError: says which key and answer.
    """
    file, found = read_object(source, expected='"gold" and "proxies"', keys=KEYS, what="this file")
    for key in ("gold", "proxies"):
        if not isinstance(found.get(key), list) or not found[key]:
            raise InputError(f"{file}: '{key}' is missing or no list; give gold rewards and one list per reward model")
    sampled = found.get("sampled", False)
    if not isinstance(sampled, bool):
        raise InputError(f"{file}: sampled: expected true or false, found {sampled!r}")
    if sampled and "reference" in found:
        raise InputError(f"{file}: reference: a sample's answers count alike; leave out 'reference' or 'sampled'")
    gold, proxies, reference = found["gold"], found["proxies"], found.get("reference")
    many = isinstance(gold[0], list)
    if not many:
        gold, proxies, reference = [gold], [proxies], None if reference is None else [reference]
    for key, values in (("proxies", proxies), ("reference", reference)):
        if values is not None and (not isinstance(values, list) or len(values) != len(gold)):
            raise InputError(f"{file}: gold has {len(gold)} prompts; '{key}' must have as many")
    prompts = []
    for number in range(len(gold)):
        where = f"{file}: prompt {number}" if many else str(file)
        weights = None if reference is None else reference[number]
        prompts.append(_answers(where, gold[number], proxies[number], weights, sampled))
    if len({len(one.proxies) for one in prompts}) > 1:
        raise InputError(f"{file}: the prompts have different numbers of reward models")
    return str(found.get("name", file.stem)), prompts


def _answers(where: str, gold: Any, proxies: Any, reference: Any, sampled: bool) -> Answers:
    gold_N, proxies_KN = _numbers(where, "gold", gold, 1), _numbers(where, "proxies", proxies, 2)
    if proxies_KN.shape[1] != len(gold_N):
        raise InputError(f"{where}: gold has {len(gold_N)} answers, and a list of proxies {proxies_KN.shape[1]}")
    if len(gold_N) < 2:
        raise InputError(f"{where}: one answer leaves nothing to choose; give at least two")
    if sampled:
        return Answers(gold=gold_N, proxies=proxies_KN, reference=None)
    weights = np.full(len(gold_N), 1.0) if reference is None else _numbers(where, "reference", reference, 1)
    if len(weights) != len(gold_N):
        raise InputError(f"{where}: reference has {len(weights)} numbers, and gold {len(gold_N)}")
    if (weights <= 0).any():
        raise InputError(f"{where}: reference: every probability must be above 0")
    if reference is not None and abs(weights.sum() - 1.0) > 1e-6:
        raise InputError(f"{where}: reference sums to {weights.sum():g}, expected 1")
    return Answers(gold=gold_N, proxies=proxies_KN, reference=weights / weights.sum())


def _numbers(where: str, key: str, values: Any, dimensions: int) -> Array:
    form = "a list of numbers" if dimensions == 1 else "one list of numbers per reward model, all as long as gold"
    try:
        numbers: Array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: {key}: expected {form}: {error}") from error
    if numbers.ndim != dimensions:
        raise InputError(f"{where}: {key}: expected {form}")
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        place = ", ".join(map(str, wrong[0]))
        raise InputError(f"{where}: {key}[{place}] is {numbers[tuple(wrong[0])]}; expected a finite number")
    return numbers

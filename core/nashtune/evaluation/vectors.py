"""Conformance vectors: a method's loss, gradients and controller decisions on given numbers, in float64.

A vector runs the same loss and KL controller objects as training. Values are per pair (or example), not divided by the batch;
a gradient is that of the sum of the values, taken by autograd.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import torch

from nashtune.errors import InputError, nearest
from nashtune.evaluation.vector_inputs import STANDARD, VectorBatch, read_inputs
from nashtune.interfaces import ExampleBatch, KLController, Loss, PairBatch, Step
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import build, resolve

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from nashtune.spec.model import Spec

TOLERANCE = 1e-9
CASE_KEYS = ("name", "source", "params", "inputs", "expected", "tolerance")
Output = float | list[float]


@dataclass(frozen=True)
class CaseResult:
    """What a case gave.

    Args:
        outputs: Loss, gradients, and what the KL controller shows.
        further: Other values that a case may expect: the loss's metrics and the controller's report, by name.
        unread: Standard inputs that were given and that this method does not read.
    """

    outputs: dict[str, Output]
    further: dict[str, Output]
    unread: list[str]


@dataclass(frozen=True)
class Difference:
    """The largest difference between a case's outputs and what it expects.

    Args:
        size: Absolute difference.
        at: Which value it is, in words.
        tolerance: What the case allows.
    """

    size: float
    at: str
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every value is within the tolerance."""
        return self.size <= self.tolerance


def run_case(spec: Spec, case: Mapping[str, Any], where: str = "case") -> dict[str, Output]:
    """Loss, gradients and controller outputs of a case, by name; see `evaluate`."""
    return evaluate(spec, case, where).outputs


def evaluate(spec: Spec, case: Mapping[str, Any], where: str = "case") -> CaseResult:
    """Run one case.

    Args:
        spec: The method; the case's `params` override its options.
        case: `inputs`, and optionally `params`, `expected`, `tolerance`, `name`, `source`.
        where: The case's place, for messages.

    Raises:
        InputError: an unknown, missing or malformed key, input or option.
    """
    for key in case:
        if key not in CASE_KEYS:
            raise InputError(f"{where}.{key} is not a key of a case{nearest(key, CASE_KEYS)}")
    if not isinstance(case.get("inputs"), Mapping):
        raise InputError(f"{where}: 'inputs' is missing; it maps names to lists, one number per pair")
    spec = resolve(spec.to_dict(), _overrides(case.get("params", {}), f"{where}.params"))
    loss = cast(Loss, build(spec.loss))
    kl = cast(KLController, build(spec.kl)) if spec.kl else None
    made = read_inputs(case["inputs"], loss, kl, list(spec.references), f"{where}.inputs")
    _need_statistics(made, kl, where)
    read: set[str] = set()
    batch = _watch(made.batch, read, f"{where}.inputs: {spec.loss.name}", loss, kl)
    beta = kl.beta(batch) if kl is not None else None
    output = loss(batch, Step(beta=beta))
    count = len(output.values) if output.values.ndim == 1 else -1
    expected_count = len(made.batch.policy if isinstance(made.batch, ExampleBatch) else made.batch.policy_chosen)
    if count != expected_count:
        raise InputError(f"{spec.loss.name} gave values of shape {tuple(output.values.shape)}; expected ({expected_count},)")
    grads = torch.autograd.grad(output.values.sum(), list(made.leaves.values()), allow_unused=True)
    outputs: dict[str, Output] = {"loss": output.values.tolist()}
    for (name, leaf), grad in zip(made.leaves.items(), grads, strict=True):
        outputs[f"grad_{name}"] = (torch.zeros_like(leaf) if grad is None else grad).tolist()
    further: dict[str, Output] = {name: value.tolist() for name, value in output.metrics.items()}
    if kl is not None and beta is not None:
        report = kl.report(made.batch, beta)
        further |= {"beta": beta.tolist(), **{name: value.tolist() for name, value in report.items()}}
        outputs |= {name: value.tolist() for name, value in kl.write_vector(made.batch, beta).items()}
        kl.observe({name: float(value.mean()) for name, value in report.items()})
        outputs |= {f"{name}_next": value for name, value in kl.state_dict().items() if isinstance(value, float)}
    unread = [name for name in STANDARD if name in made.given and not _was_read(name, read)]
    return CaseResult(outputs, further, unread)


def compare(result: CaseResult, case: Mapping[str, Any], where: str = "case") -> Difference | None:
    """The largest difference from what the case expects; None where it expects nothing.

    Raises:
        InputError: `expected` names something this method does not give, or has another shape.
    """
    if "expected" not in case:
        return None
    known = {**result.further, **result.outputs}
    tolerance = case.get("tolerance", TOLERANCE)
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < math.inf:
        raise InputError(f"{where}.tolerance: {tolerance!r} is not a number >= 0")
    if not isinstance(case["expected"], Mapping) or not case["expected"]:
        raise InputError(f"{where}.expected: give a mapping from names to numbers, or leave it out")
    worst = Difference(0.0, "", float(tolerance))
    for name, value in case["expected"].items():
        if name not in known:
            raise InputError(f"{where}.expected.{name} is nothing this method gives{nearest(name, known)}")
        wanted, found = _flat(value), _flat(known[name])
        if len(wanted) != len(found):
            raise InputError(f"{where}.expected.{name}: {len(wanted)} values, but the method gives {len(found)}")
        for i, (a, b) in enumerate(zip(wanted, found, strict=True)):
            if not isinstance(a, int | float):
                raise InputError(f"{where}.expected.{name}: {a!r} is not a number")
            size = abs(a - b) if math.isfinite(b) else math.inf
            if size > worst.size:
                worst = Difference(size, f"{name}[{i}] is {b!r}, expected {a!r}", worst.tolerance)
    return worst


def load_cases(file: Traversable) -> list[Mapping[str, Any]]:
    """The cases of a vector file.

    Raises:
        InputError: no such file, no JSON, no cases.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; a vector file is JSON with a list `cases`")
    try:
        data = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text ({error})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: broken JSON ({error.msg})") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("cases"), list) or not data["cases"]:
        raise InputError(f"{file}: expected an object with a non-empty list `cases`")
    for key in data:
        if key not in ("cases", "source"):
            raise InputError(f"{file}: '{key}' is not a key of a vector file{nearest(key, ['cases', 'source'])}")
    for i, case in enumerate(data["cases"]):
        if not isinstance(case, dict):
            raise InputError(f"{file}: cases[{i}] is not an object")
    return cast("list[Mapping[str, Any]]", data["cases"])


def _no_duplicates(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in items:
        if key in found:
            raise InputError(f"'{key}' is given twice")
        found[key] = value
    return found


def _overrides(params: Any, where: str) -> list[Override]:
    """`{"kl": {"beta": 0.1}}` as overrides, component names before their options."""
    if not isinstance(params, Mapping):
        raise InputError(f"{where}: expected an object such as {{'kl': {{'beta': 0.1}}}}")
    found = []
    for section, options in params.items():
        if not isinstance(options, Mapping):
            found.append(Override((section,), options, f"{where}.{section}"))
            continue
        found += [Override((section, key), value, f"{where}.{section}.{key}") for key, value in options.items()]
    return sorted(found, key=lambda one: len(one.path) > 1 and one.path[-1] != "name")


def _need_statistics(made: VectorBatch, kl: KLController | None, where: str) -> None:
    if kl is None or not kl.statistics or not isinstance(made.batch, PairBatch) or made.batch.statistics_chosen:
        return
    ways = " or ".join(["policy_logits_*, ref_logits_*, *_tokens", *kl.vector_inputs])
    raise InputError(f"{where}.inputs: the KL controller decides by vocabulary statistics; give {ways}")


class _Watched:
    """Mixin: a batch that notes which of its fields are read, and refuses those that were not given."""

    _read: set[str]
    _absent: Mapping[str, str]
    _names: frozenset[str]

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "_names"):
            self._read.add(name)
            if name in self._absent:
                raise InputError(self._absent[name])
        return super().__getattribute__(name)


class _WatchedPairs(_Watched, PairBatch):
    _names = frozenset(one.name for one in fields(PairBatch))


class _WatchedExamples(_Watched, ExampleBatch):
    _names = frozenset(one.name for one in fields(ExampleBatch))


class _Anchors(dict[str, Any]):
    """Anchors that note which are read and say which inputs are missing."""

    def __init__(self, given: Mapping[str, Any], read: set[str], missing: str) -> None:
        super().__init__(given)
        self._read, self._missing = read, missing

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        raise InputError(self._missing.format(name=name))


def _watch(
    batch: PairBatch | ExampleBatch, read: set[str], who: str, loss: Loss, kl: KLController | None
) -> PairBatch | ExampleBatch:
    parts = dict(vars(batch))
    absent = {}
    needs = f"{who} needs {{name}}_chosen and {{name}}_rejected"
    for name in ("len_chosen", "len_rejected", "length"):
        if name in parts and bool(parts[name].isnan().any()):
            absent[name] = f"{who} needs {'len_chosen and len_rejected' if name != 'length' else 'length'}"
    if isinstance(batch, ExampleBatch):
        needs = f"{who} needs {{name}} (or {{name}}_chosen and {{name}}_rejected)"
        if batch.policy_mismatched is None:
            ways = " or ".join(["policy_mismatched and ref_mismatched", *loss.vector_inputs])
            absent["policy_mismatched"] = f"{who} needs {ways}"
        mismatched = f"{who} needs {{name}}_mismatched"
        parts["anchors_mismatched"] = _Anchors(batch.anchors_mismatched, read, mismatched)
    parts["anchors"] = _Anchors(batch.anchors, read, needs)
    watched = (_WatchedExamples if isinstance(batch, ExampleBatch) else _WatchedPairs)(**parts)
    object.__setattr__(watched, "_read", read)
    object.__setattr__(watched, "_absent", absent)
    return watched


def _was_read(name: str, read: set[str]) -> bool:
    if name.startswith("policy"):
        return True
    side = name.rsplit("_", 1)[0]
    return name in read or side in read or (side == "len" and "length" in read)


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]

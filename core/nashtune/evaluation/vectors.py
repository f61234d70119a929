"""Conformance vectors: a method's loss, gradients and controller decisions on given numbers, in float64.

A vector runs the same loss and KL controller objects as training. Values are per pair (or example, or rollout), not
divided by the batch; a gradient is that of the sum of the values, taken by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from nashtune.apply_loss import apply_loss
from nashtune.errors import InputError, nearest
from nashtune.evaluation.vector_inputs import VectorBatch, read_inputs
from nashtune.evaluation.vector_logprobs import STANDARD
from nashtune.evaluation.vector_results import CaseResult, Output
from nashtune.evaluation.vector_rounds import play_rounds
from nashtune.evaluation.vector_scores import evaluate_scores
from nashtune.evaluation.vector_update import evaluate_rollouts
from nashtune.evaluation.watched import was_read, watch
from nashtune.interfaces import (
    ExampleBatch,
    KLController,
    Loss,
    LossBatch,
    PairBatch,
    RewardOracle,
    RolloutBatch,
    Schedule,
    ScoreBatch,
    Step,
)
from nashtune.kl.asked import asked_beta, asked_report
from nashtune.oracles.chosen_by_run import RewardChosenByRun
from nashtune.spec.model import SECTIONS
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import build, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.spec.model import Spec

TOLERANCE = 1e-9
CASE_KEYS = ("name", "source", "params", "step", "rounds", "inputs", "expected", "tolerance")


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
        case: `inputs`, and optionally `params`, `step` (`round` and `scale` of a game's update), `rounds` (what the
            KL controller was told before), `expected`, `tolerance`, `name`, `source`.
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
    oracle = _oracle(spec, case["inputs"])
    made = read_inputs(case["inputs"], loss, kl, list(spec.references), f"{where}.inputs", oracle)
    _need_statistics(made, kl, where)
    played = play_rounds(kl, made.batch, case.get("rounds"), f"{where}.rounds")
    if isinstance(made.batch, RolloutBatch):
        step = _step(case.get("step", {}), None, f"{where}.step")
        result = evaluate_rollouts(made, made.batch, loss, kl, step, where, spec.loss.name)
        return CaseResult(result.outputs, {**result.further, **played}, result.unread)
    if isinstance(made.batch, ScoreBatch):
        step = _step(case.get("step", {}), None, f"{where}.step")
        return evaluate_scores(made, made.batch, loss, step, spec.loss.name)
    read: set[str] = set()
    batch = watch(made.batch, read, f"{where}.inputs: {spec.loss.name}", loss.vector_inputs)
    beta = asked_beta(kl, batch) if kl is not None else None
    output = apply_loss(loss, batch, _step(case.get("step", {}), beta, f"{where}.step"))
    count, expected_count = len(output.values), _rows(made.batch)
    if count != expected_count:
        raise InputError(f"{spec.loss.name} gave values of shape ({count},); expected ({expected_count},)")
    grads = torch.autograd.grad(output.values.sum(), list(made.leaves.values()), allow_unused=True)
    outputs: dict[str, Output] = {"loss": output.values.tolist()}
    for (name, leaf), grad in zip(made.leaves.items(), grads, strict=True):
        outputs[f"grad_{name}"] = (torch.zeros_like(leaf) if grad is None else grad).tolist()
    further: dict[str, Output] = {**played, **{name: value.tolist() for name, value in output.metrics.items()}}
    if kl is not None and beta is not None:
        report = asked_report(kl, made.batch, beta)
        further |= {"beta": beta.tolist(), **{name: value.tolist() for name, value in report.items()}}
        outputs |= {name: value.tolist() for name, value in kl.write_vector(made.batch, beta).items()}
        kl.observe({name: value.double().mean() for name, value in report.items()})
        outputs |= {f"{name}_next": value for name, value in kl.state_dict().items() if isinstance(value, float)}
    unread = [name for name in STANDARD if name in made.given and not was_read(name, read)]
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


def _oracle(spec: Spec, inputs: Mapping[str, Any]) -> RewardOracle | None:
    """What makes rewards of an ensemble's scores; None where completions are not rewarded one by one."""
    if not cast(Schedule, build(spec.schedule)).scores:
        return None
    if spec.oracle is None or "members" not in inputs:
        return RewardChosenByRun()  # leaves scores as they are
    return cast(RewardOracle, build(spec.oracle))


def _step(given: Any, beta: Tensor | None, where: str) -> Step:
    if not isinstance(given, Mapping) or not set(given) <= {"round", "scale"}:
        raise InputError(f"{where}: expected an object such as {{'round': 2, 'scale': 2.0}}, found {given!r}")
    round, scale = given.get("round", 1), given.get("scale", 1.0)
    if not isinstance(round, int) or isinstance(round, bool) or round < 1:
        raise InputError(f"{where}.round: {round!r} is not a round; give a whole number from 1")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise InputError(f"{where}.scale: {scale!r} is not a number of steps; give a number > 0")
    return Step(beta=beta, round=round, scale=float(scale))


def _rows(batch: LossBatch) -> int:
    match batch:
        case RolloutBatch():
            return len(batch.score)
        case ScoreBatch():
            return len(batch.sizes)
        case ExampleBatch():
            return len(batch.policy)
    return len(batch.policy_chosen)


def _overrides(params: Any, where: str) -> list[Override]:
    """`{"kl": {"beta": 0.1}}` as overrides, component names before their options."""
    if not isinstance(params, Mapping):
        raise InputError(f"{where}: expected an object such as {{'kl': {{'beta': 0.1}}}}")
    found = []
    for section, options in params.items():
        if section not in SECTIONS:
            raise InputError(f"{where}.{section} is not a section of a spec{nearest(section, SECTIONS)}")
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


def _flat(value: Any) -> list[Any]:
    return [one for part in value for one in _flat(part)] if isinstance(value, list) else [value]

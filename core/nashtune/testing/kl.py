"""The contract of a KL controller: bounds, purity, resume, and stability on the test bench.

Legend: B = pairs, S = rollouts, M = completion tokens, V = vocabulary.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import KLController
from nashtune.kl.plant import Plant, spectral_radius
from nashtune.testing.batches import Draw
from nashtune.testing.bench import close, shown
from nashtune.testing.columns import Columns
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.declared import check_class
from nashtune.testing.kl_bench import KLBench, bounded
from nashtune.testing.kl_direction import ROUNDS, check_direction
from nashtune.testing.kl_rows import check_moves, check_rows_apart, check_taken
from nashtune.testing.state import check_resume, numbers, plain
from nashtune.testing.subject import Subject
from nashtune.testing.sweep import sweep

COMPLETIONS = (512, 64, 8)
"""Of an update; the first number that the controller takes."""


def check(subject: Subject, options: Mapping[str, Any]) -> None:
    """Check a KL controller with each of its options.

    Raises:
        ContractError: it breaks a rule.
    """

    def bench_of(made: Any, chosen: dict[str, Any]) -> KLBench:
        assert isinstance(made, KLController)
        return KLBench(functools.partial(subject.make, chosen), subject.named(chosen))

    said = {name for name in ("uses_variance", "beta_per_side", "compares_rows") if getattr(subject.cls, name)}
    said |= {f"the anchor '{name}'" for name in subject.cls.anchors}  # type: ignore[attr-defined]
    check_class(subject)
    check_moves(subject)
    check_taken(subject, options, bench_of)
    sweep(subject, options, "kl-declares", said, bench_of, _check, _effective)


def _check(bench: KLBench) -> set[str]:
    for kind in bench.kinds:
        _beta(bench, kind)
        _report(bench, kind)
        bench.check_undeclared(kind)
        check_resume(bench.make, functools.partial(bench.step, kind=kind), bench.who, "kl-resume", "beta")
    require(bool(bench.kinds), bench.who, "runs", "with these options it takes no rows at all")
    check_rows_apart(bench)
    _statistics(bench)
    if "pairs" in bench.kinds:
        _many_steps(bench)
    if "rollouts" in bench.kinds:
        _reward(bench)
        _many_rounds(bench)
    return _effective(bench)


def _effective(bench: KLBench) -> set[str]:
    return {name for kind in bench.kinds for name in bench.effective(kind)}


def _beta(bench: KLBench, kind: str) -> None:
    for dtype in (torch.float32, torch.float64):
        columns = bench.columns(kind).to(dtype)
        controller = bench.make()
        kept, state = columns.clone(), plain(controller, bench.who, "kl-resume")
        beta = bench.beta(controller, kind, columns)
        require(isinstance(beta, Tensor), bench.who, "kl-beta", f"beta gave {beta!r}, no tensor")
        shapes = [(), (len(columns),)]
        if kind == "pairs" and controller.beta_per_side:
            shapes = [(), (len(columns), 2)]
        require(tuple(beta.shape) in shapes, bench.who, "kl-beta", f"beta is {shown(beta)} for {len(columns)} {kind}")
        require(not beta.requires_grad, bench.who, "kl-beta", "beta carries a gradient; detach what it is made of")
        wide = beta.dtype in (torch.float32, torch.float64)
        require(wide, bench.who, "kl-beta", f"beta is {shown(beta)}; float32 or wider keeps its digits")
        bounded(bench.who, beta, f"for {kind}")
        again = bench.beta(controller, kind, columns)
        require(torch.equal(beta, again), bench.who, "kl-pure", f"asked twice it gave {beta} and {again}")
        require(
            plain(controller, bench.who, "kl-resume") == state,
            bench.who,
            "kl-pure",
            "beta changed what state_dict gives",
        )
        require(columns.same(kept), bench.who, "kl-pure", "it changes its batch in place")


def _report(bench: KLBench, kind: str) -> None:
    columns, controller = bench.columns(kind), bench.make()
    with running(bench.who, "report"):
        found = controller.report(bench.batch(kind, columns), bench.beta(controller, kind, columns))
    for name, value in found.items():
        fits = isinstance(value, Tensor) and tuple(value.shape) in ((), (len(columns),))
        require(fits, bench.who, "kl-report", f"{name} is {shown(value)} for {len(columns)} {kind}")
        require(not value.requires_grad, bench.who, "kl-report", f"{name} carries a gradient")
        require(bool(value.isfinite().all()), bench.who, "kl-report", f"{name} is {value.tolist()}")


def _statistics(bench: KLBench) -> None:
    controller, draw, rule = bench.make(), Draw(11), "kl-statistics"
    if not controller.statistics:
        return
    policy_MV, ref_MV, targets_M = draw.normal(6, 9).float(), draw.normal(6, 9).float(), torch.arange(6)
    inputs = policy_MV.clone().requires_grad_(), ref_MV.clone(), targets_M
    with running(bench.who, "token_statistics"):
        found = controller.token_statistics(*inputs)
        parts = [controller.token_statistics(policy_MV[i], ref_MV[i], targets_M[i]) for i in (slice(2), slice(2, 6))]
    names = f"gave {', '.join(found) or 'nothing'}, and `statistics` declares {', '.join(controller.statistics)}"
    require(set(found) == set(controller.statistics), bench.who, rule, f"token_statistics {names}")
    for name, value in found.items():
        fits = value.shape == (6,) and value.dtype in (torch.float32, torch.float64)
        require(fits, bench.who, rule, f"{name} is {shown(value)} for 6 tokens in float32")
        require(not value.requires_grad, bench.who, rule, f"{name} carries a gradient")
        require(bool(value.isfinite().all()), bench.who, rule, f"{name} is {value.tolist()}")
        apart = torch.cat([part[name] for part in parts])
        require(
            close(apart, value.detach(), 1e-5), bench.who, rule, f"{name} of a token depends on the tokens beside it"
        )


def _many_steps(bench: KLBench) -> None:
    """Steps on pairs that all show the same extreme."""
    for what, columns in bench.extreme_pairs():
        controller = bench.make()
        for number in range(ROUNDS):
            beta = bench.observed(controller, columns, f"step {number + 1} with {what}")
            bounded(bench.who, beta, f"after {number + 1} steps with {what}")


def _reward(bench: KLBench) -> None:
    """What a policy gradient is paid, for completions that an anchor likes less and less."""
    columns, controller, rule = bench.columns("rollouts"), bench.make(), "kl-reward"
    beta = bench.beta(controller, "rollouts", columns)

    def paid(changed: Columns) -> Tensor:
        with running(bench.who, "reward"):
            return bench.make().reward(bench.batch("rollouts", changed), beta)  # type: ignore[arg-type]

    reward = paid(columns)
    fits = isinstance(reward, Tensor) and tuple(reward.shape) == (len(columns),)
    require(fits, bench.who, "kl-beta", f"reward is {shown(reward)} for {len(columns)} rollouts")
    good = bool(reward.isfinite().all()) and not reward.requires_grad
    require(good, bench.who, "kl-beta", f"reward is {numbers(reward.detach())}, or carries a gradient")
    for anchor in controller.anchors:
        near, far = (paid(columns.put(**{anchor: columns["old"] - nats})) for nats in (0.0, 1.0))
        said = f"it pays {numbers(far)} where the policy likes each token 1 nat more than '{anchor}' does, and "
        said += f"{numbers(near)} where they agree"
        require(bool((far <= near + 1e-9).all()), bench.who, rule, said)


def _many_rounds(bench: KLBench) -> None:
    """Rounds of rollouts at the extremes, and the loop at the set point."""
    controller = bench.make()
    count = _completions(bench, controller)
    setpoint = controller.setpoint()
    fits = setpoint is None or (math.isfinite(setpoint) and setpoint > 0)
    require(fits, bench.who, "kl-stable", f"its set point is {setpoint!r}; a KL divergence is > 0")
    check_direction(bench, Plant(kl_rest=setpoint or 6.0, completions=count))
    if setpoint is None:
        return
    plant = Plant(kl_rest=setpoint, completions=count)
    with running(bench.who, "a round on the test bench"):
        radius = spectral_radius(bench.make(), plant)
    grows = f"a small disturbance grows by the factor {radius:.4g} a round (lag {plant.lag:g}, no delay)"
    require(radius is not None and radius < 1.0, bench.who, "kl-stable", grows)


def _completions(bench: KLBench, controller: KLController) -> int:
    refusals = []
    for count in COMPLETIONS:
        try:
            controller.check_round(count)
        except InputError as error:
            refusals.append(f"{count} ({error})")
        else:
            return count
    raise ContractError(bench.who, "runs", f"check_round refuses every number of completions: {'; '.join(refusals)}")

"""`nashtune controller`: run a spec's KL controller on a simulated plant, and say whether it settles."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from nashtune.cli.output import print_json, print_table
from nashtune.cli.values import number, picture_path, whole
from nashtune.errors import InputError, nearest
from nashtune.terminal import say

if TYPE_CHECKING:
    from nashtune.kl.plant import Plant
    from nashtune.kl.plant_trace import Trace
    from nashtune.spec.model import Spec

SUMMARY = "run a spec's KL controller on a simulated plant, and say whether it settles"
EPILOG = """\
The controller is the object that trains; the plant is simulated. Its KL divergence falls with β, follows with a lag,
answers an older β where there is a delay, and is measured on noisy rollouts:
    nashtune controller ppo --spec.kl adaptive --spec.kl.beta 0.1 --spec.kl.target 6
    nashtune controller ppo --spec.kl adaptive --spec.kl.beta 0.1 --vary gain=horizon,constant --plot gains.png
Exit codes: 0 done, whether it settled or not; 2 the input was wrong."""
ROUNDS = 400
START = 0.5
"""By default the controller starts at this share of the β that it has to find."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune controller`."""
    parser.add_argument("spec", metavar="SPEC", help="name or file of a spec, or a run's saved config.yaml")
    parser.add_argument("--rounds", metavar="N", help=f"rounds to simulate (default: {ROUNDS})")
    parser.add_argument("--completions", metavar="N", help="rollouts of a round (default: 512)")
    parser.add_argument("--lag", metavar="N", help="rounds in which the KL follows β, >= 1 (default: 20)")
    parser.add_argument("--delay", metavar="N", help="rounds until a β acts at all (default: 0)")
    parser.add_argument(
        "--noise", metavar="X", help="standard deviation of a round's measured KL, as a share of the target (0.05)"
    )
    parser.add_argument(
        "--rest", metavar="X", help="β at which the KL rests at the target (default: twice the first β)"
    )
    parser.add_argument("--seed", metavar="N", help="of the noise (default: 0)")
    parser.add_argument("--vary", metavar="OPTION=A,B", help="one run for each value of an option of the controller")
    parser.add_argument("--plot", metavar="FILE", help="save a picture, a PNG")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def take(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take `--spec.x.y value` off the command line."""
    from nashtune.spec.overrides import take_overrides

    overrides, rest = take_overrides(argv)
    return {"overrides": overrides}, rest


def run(args: argparse.Namespace) -> int:
    """Simulate, measure, print.

    Raises:
        InputError: a wrong option or spec, or a spec without a KL controller.
    """
    from nashtune.spec.overrides import parse_override
    from nashtune.spec.resolve import resolve

    picture = picture_path(args.plot)
    spec = resolve(args.spec, args.overrides)
    if spec.kl is None:
        raise InputError(f"{args.spec}: the spec has no KL controller (kl: none); give one that has")
    settings: dict[str, Spec] = {f"{spec.kl.name}": spec}
    if args.vary is not None:
        option, values = _vary(args.vary, spec)
        changes = {value: parse_override(f"--spec.kl.{option}", value) for value in values}
        settings = {
            f"{spec.kl.name}, {option} {value}": resolve(args.spec, [*args.overrides, change])
            for value, change in changes.items()
        }

    from nashtune.interfaces import KLController
    from nashtune.kl.plant import reacts, simulate
    from nashtune.spec.resolve import build

    controllers = {name: cast(KLController, build(one.kl)) for name, one in settings.items() if one.kl is not None}
    if not any(reacts(one) for one in controllers.values()):
        return _nothing(spec, as_json=args.json)
    plant, rounds = _plant(args, next(iter(controllers.values())))
    traces = []
    for name, controller in controllers.items():
        target = controller.setpoint()
        traces.append(simulate(controller, plant if target is None else replace(plant, kl_rest=target), rounds, name))
    if args.json:
        shown = [{**trace.to_dict(), "verdict": _verdict(trace)} for trace in traces]
        print_json({"spec": spec.name, "reacts": True, "plant": vars(plant), "rounds": rounds, "traces": shown})
    else:
        _print(traces, plant, rounds, spec)
    if picture is not None:
        from nashtune.kl.plant_plot import draw

        title = f"{spec.name}: lag {plant.lag:g}, delay {plant.delay}, noise {plant.noise:g}"
        draw(traces, plant, picture, title)
        if not args.json:
            say(f"picture: {picture}")
    return 0


def _nothing(spec: Spec, *, as_json: bool) -> int:
    assert spec.kl is not None
    said = f"{spec.name}: kl '{spec.kl.name}' does not react to the rounds of a run, so that there is nothing to settle"
    if as_json:
        print_json({"spec": spec.name, "reacts": False, "verdict": said})
    else:
        say(said)
    return 0


def _plant(args: argparse.Namespace, controller: Any) -> tuple[Plant, int]:
    from nashtune.kl.plant import Plant, rollouts

    given: dict[str, Any] = {}
    for name, fewest in (("completions", 1), ("delay", 0), ("seed", 0)):
        if getattr(args, name) is not None:
            given[name] = whole(getattr(args, name), f"--{name}", least=fewest)
    for name, least in (("lag", 1.0), ("noise", 0.0)):
        if getattr(args, name) is not None:
            given[name] = number(getattr(args, name), f"--{name}", least=least)
    target = controller.setpoint()
    if target is not None:
        given["kl_rest"] = target
    plant = Plant(**given)
    if args.rest is not None:
        rest = number(args.rest, "--rest", least=0.0)
        if rest == 0.0:
            raise InputError("--rest: 0; a β is above 0")
    else:
        import numpy as np

        first = float(controller.beta(rollouts(0.0, plant, np.random.default_rng(0))).mean())
        rest = first / START
    rounds = whole(args.rounds, "--rounds", least=2) if args.rounds is not None else ROUNDS
    return replace(plant, beta_rest=rest), rounds


def _vary(text: str, spec: Spec) -> tuple[str, list[str]]:
    from nashtune.kl.plant_plot import MOST

    assert spec.kl is not None
    option, _, values = text.partition("=")
    if option not in spec.kl.args:
        raise InputError(
            f"--vary {text}: '{option}' is no option of kl '{spec.kl.name}'{nearest(option, spec.kl.args)}; "
            "write it as OPTION=A,B"
        )
    found = list(dict.fromkeys(value for value in values.split(",") if value))
    if not 1 <= len(found) <= MOST:
        raise InputError(f"--vary {text}: {len(found)} values; give 1 to {MOST}, as {option}=A,B")
    return option, found


def _print(traces: Sequence[Trace], plant: Plant, rounds: int, spec: Spec) -> None:
    say(
        f"{spec.name}: {rounds} rounds of {plant.completions} completions; lag {plant.lag:g}, delay {plant.delay}, "
        f"noise {plant.noise:g}; the KL rests at {plant.kl_rest:g} nats under β = {plant.beta_rest:g}"
    )
    columns = ["controller", "target", "settled in round", "overshoot", "last error", "ripple", "β first", "β last"]
    rows = [
        [
            trace.name,
            f"{trace.setpoint:g}" if trace.setpoint is not None else "none",
            "never" if trace.settled is None else str(trace.settled),
            f"{trace.overshoot:+.1%}",
            f"{trace.final_error:+.1%}",
            f"{trace.ripple:.1%}",
            f"{trace.beta[0]:.4g}",
            f"{trace.beta[-1]:.4g}",
        ]
        for trace in traces
    ]
    print_table(columns, rows)
    for trace in traces:
        say(f"{trace.name}: {_verdict(trace)}")


def _verdict(trace: Trace) -> str:
    if trace.setpoint is None:
        return "steers to no KL of its own; errors are measured from where the plant came to rest"
    assert trace.radius is not None
    local = (
        f"a small disturbance shrinks by {trace.radius:.4f} a round"
        if trace.radius < 1.0
        else f"a small disturbance grows by {trace.radius:.4f} a round: unstable at the target"
    )
    if trace.settled is not None:
        return f"settles within a tenth of the target from round {trace.settled} on; {local}"
    return f"does not settle in {len(trace.kl)} rounds; {local}"

"""`nashtune check`: everything that can be known of a spec and a run before a model is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from nashtune.cli.output import print_json
from nashtune.errors import InputError
from nashtune.interfaces import Oracle
from nashtune.plugins.manager import OWN
from nashtune.plugins.targets import problem_at
from nashtune.spec.findings import Findings
from nashtune.spec.gamerules import attribute
from nashtune.spec.games import check_game
from nashtune.spec.locate import list_specs
from nashtune.spec.model import Spec
from nashtune.spec.resolve import build, resolve
from nashtune.spec.run import RUN_SECTIONS, load_runs, split_cli
from nashtune.spec.runcheck import Checked, check_run
from nashtune.spec.runoptions import put_options
from nashtune.terminal import say

SUMMARY = "check a spec, and a run, without loading a model"
EPILOG = """\
Takes the command line of `nashtune fit`, so that what is checked is what would run:
    nashtune check dpo
    nashtune check dpo --config demo --spec.kl.beta 0.2 --trainer.max_steps 5
    nashtune check --all
With --config it also checks the run file, reads every row, looks at the model's files, counts the steps and predicts
the peak of memory and of disk; for a game it counts generations, judgements and forward passes.
Exit code 0 when nothing was found, 2 otherwise; each finding is one line on stderr, with file and line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune check`."""
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="name or file of a spec (or --spec SPEC, as for fit)")
    parser.add_argument("--config", metavar="RUN", help="run file by name or path; may be given several times, layered")
    parser.add_argument("--all", action="store_true", help="check every spec that is known by name")
    parser.add_argument(
        "--build",
        action="store_true",
        help="also construct components and prepare the oracle; loads torch",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON list: name, ok, findings, notes, plan, memory and disk (in bytes)",
    )


def take(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take what belongs to spec and run off the command line: it has no fixed set of options."""
    line = split_cli(argv)
    options: list[str] = []
    rest: list[str] = []
    tokens = iter(line.rest)
    for token in tokens:
        name = token.partition("=")[0]
        if name.startswith("--") and name[2:].partition(".")[0] in RUN_SECTIONS:
            options.append(token)
            if "=" not in token:
                options += [value for value in (next(tokens, None),) if value is not None]
        else:
            rest.append(token)
    return {"line": line, "options": options}, rest


def run(args: argparse.Namespace) -> int:
    """Check and report.

    Raises:
        InputError: what is wrong.
    """
    if args.all:
        if args.spec or args.line.spec or args.line.configs or args.options or args.line.overrides:
            raise InputError("check: --all goes with --build and --json only; give a SPEC to check a run or a setting")
        names = sorted({listed.name for listed in list_specs()})
        results = [_result(name, args) for name in names]
    else:
        if args.spec and args.line.spec and args.spec != args.line.spec:
            raise InputError(f"check: two specs, {args.spec} and --spec {args.line.spec}; give one")
        results = [_result(args.spec or args.line.spec, args)]
    findings = [line for result in results for line in result["findings"]]
    if args.json:
        print_json(results)
        return 2 if findings else 0
    for result in results:
        if result["ok"]:
            say(f"{result['name']}: ok")
        for note in result["notes"]:
            say(f"  {note}")
    if findings:
        raise Findings(findings)
    return 0


def _result(name: str | None, args: argparse.Namespace) -> dict[str, Any]:
    checked = Checked()
    findings: list[str] = []
    try:
        name, checked = _check(name, args)
    except Findings as error:
        findings = error.lines
    except InputError as error:
        findings = [str(error)]
    plan = checked.plan.as_dict() if checked.plan is not None else None
    memory = checked.memory.as_dict() if checked.memory is not None else None
    result = {"name": name, "ok": not findings, "findings": findings, "notes": checked.notes}
    return {**result, "plan": plan, "memory": memory, "disk": checked.disk}


def _missing(spec: Spec) -> list[str]:
    """Components of plugins whose module, or what it imports first of all, is not there; read from their sources."""
    parts = [one for _, one in spec.components() if one.origin is None or one.origin.plugin != OWN]
    return [
        f"{one.where}: {one.kind} '{one.name}': {problem}"
        for one in parts
        if (problem := problem_at(one.target, one.kind))
    ]


def _check(name: str | None, args: argparse.Namespace) -> tuple[str, Checked]:
    runs = put_options(load_runs(args.line.configs), args.options)
    source = name or runs.spec
    if source is None:
        raise InputError("check: which spec? Give its name or file, or --all; `nashtune list` shows the names")
    spec = resolve(source, [*runs.overrides, *args.line.overrides])
    if missing := _missing(spec):
        raise Findings(missing)
    built = [build(component) for _, component in spec.components()] if args.build else []
    if not runs.data:
        check_game(spec)
        return name or spec.name, Checked()
    checked = check_run(spec, runs)
    oracle = spec.oracle
    if args.build:
        for one in built:
            if isinstance(one, Oracle) and not one.chosen_by_run:
                one.prepare()
    elif oracle is not None and attribute(oracle, "model_argument", None) is not None:
        checked.notes.append(f"oracle '{oracle.name}': the model's files are looked at by fit, or by check --build")
    return name or spec.name, checked

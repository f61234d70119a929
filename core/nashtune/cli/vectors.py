"""`nashtune vectors`: run a method's conformance vectors, or a file of one's own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.cli.output import print_json
from nashtune.errors import InputError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from nashtune.evaluation.vector_results import CaseResult
    from nashtune.evaluation.vectors import Difference

SUMMARY = "check a spec's loss and gradients against known numbers, in float64"
FOLDER = "vectors"
"""Folder of vector files beside the specs: vectors/NAME.json."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune vectors`."""
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="name or file of a spec")
    parser.add_argument("--file", metavar="F", help="JSON file with a list `cases`, instead of the spec's own vectors")
    parser.add_argument("--all", action="store_true", help="run the vectors of every spec")
    parser.add_argument("--json", action="store_true", help="print what was computed as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the cases; 1 if one of them fails.

    Raises:
        InputError: a wrong combination of options, or a wrong spec, file or case.
    """
    if args.all == bool(args.spec):
        raise InputError("vectors: give a SPEC or --all; run `nashtune list` for the names")
    if args.all and args.file:
        raise InputError("vectors: --file holds the cases of one method; give its SPEC instead of --all")
    if not args.all:
        file = Path(args.file) if args.file else _own_vectors(args.spec)
        if file is None:
            raise InputError(f"{args.spec}: this spec brings no vectors ({FOLDER}/NAME.json beside it); give --file")
        cases, passed = _run_spec(args.spec, file, quiet=args.json)
        if args.json:
            print_json({"cases": cases})
        return 0 if passed else 1
    return _run_all(as_json=args.json)


def _run_all(*, as_json: bool) -> int:
    from nashtune.spec.locate import list_specs

    results, failed, without = [], [], []
    for name in sorted({listed.name for listed in list_specs()}):
        file = _own_vectors(name)
        if file is None:
            without.append(name)
            continue
        cases, passed = _run_spec(name, file, quiet=as_json)
        results.append({"spec": name, "passed": passed, "cases": cases})
        failed += [] if passed else [name]
    if as_json:
        print_json({"specs": results, "without_vectors": without})
    else:
        print(f"{len(results)} specs, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
        for name in without:
            print(f"{name}: brings no vectors")
    return 1 if failed else 0


def _own_vectors(name: str) -> Traversable | None:
    """vectors/NAME.json beside the spec's file, if it is there."""
    from nashtune.spec.locate import find_spec, is_path, list_specs

    file = find_spec(name)
    stem = Path(file.name).stem
    if is_path(name):
        beside: Traversable = Path(name).expanduser().parent / FOLDER / f"{stem}.json"
        return beside if beside.is_file() else None
    from nashtune.plugins import load_plugins

    owner = next(listed.plugin for listed in list_specs() if listed.name == name)
    for plugin, folder in load_plugins().spec_dirs():
        candidate = folder / FOLDER / f"{stem}.json"
        if plugin == owner and candidate.is_file():
            return candidate
    return None


def _run_spec(name: str, file: Traversable, *, quiet: bool) -> tuple[list[dict[str, Any]], bool]:
    """Every case of a file: what `--json` shows of each, and whether all passed."""
    from nashtune.evaluation.vector_files import load_cases
    from nashtune.evaluation.vectors import compare, evaluate
    from nashtune.spec.resolve import resolve

    spec = resolve(name)
    shown, largest, passed, checked = [], 0.0, True, 0
    for i, case in enumerate(load_cases(file)):
        where = f"{file}: cases[{i}]"
        result = evaluate(spec, case, where)
        difference = compare(result, case, where)
        label = f"{spec.name}, case {i + 1}" + (f" ({case['name']})" if "name" in case else "")
        if result.unread:
            print(f"note: {label}: {spec.loss.name} does not read {', '.join(result.unread)}", file=sys.stderr)
        shown.append(_as_dict(result, case, difference))
        if difference is None:
            if not quiet:
                print(f"{label}:\n{json.dumps(shown[-1], indent=2)}")
            continue
        checked += 1
        largest = max(largest, difference.size)
        if not difference.passed:
            passed = False
            detail = f"largest difference {difference.size:.3e}, tolerance {difference.tolerance:.0e}: {difference.at}"
            print(f"FAILED {label}: {detail}", file=sys.stderr)
    if checked and not quiet:
        verdict = "ok" if passed else "FAILED"
        print(f"{spec.name}: cases checked {checked}, largest difference {largest:.1e}, {verdict}")
    return shown, passed


def _as_dict(result: CaseResult, case: Any, difference: Difference | None) -> dict[str, Any]:
    expected = case.get("expected", {})
    shown = {**result.outputs, **{name: value for name, value in result.further.items() if name in expected}}
    if difference is not None:
        shown |= {"passed": difference.passed, "largest_difference": difference.size}
    return shown

"""`nashtune vectors`: run a method's conformance vectors, or a file of one's own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.cli.output import print_json
from nashtune.errors import InputError
from nashtune.spec.overrides import PREFIX
from nashtune.terminal import say

if TYPE_CHECKING:
    from nashtune.evaluation.vector_place import Place
    from nashtune.evaluation.vector_results import CaseResult
    from nashtune.evaluation.vectors import Difference

SUMMARY = "check a spec's loss and gradients against known numbers, in float64"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune vectors`."""
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="name or file of a spec")
    parser.add_argument("--file", metavar="F", help="JSON file with a list `cases`, instead of the spec's own vectors")
    parser.add_argument("--all", action="store_true", help="run the vectors of every spec")
    parser.add_argument("--json", action="store_true", help="print what was computed as JSON")


def take(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Refuse `--spec.x.y`: a case's numbers are right for the options that the case gives."""
    for word in argv:
        option = word.partition("=")[0]
        if option.startswith(PREFIX):
            path = option.removeprefix(PREFIX).split(".")
            keys = "".join(f'{{"{key}": ' for key in path) + "VALUE" + "}" * len(path)
            raise InputError(
                f'{option}: vectors take no settings; a case sets its own in the vector file, "params": {keys}. Copy '
                "the file, and give the copy with --file"
            )
    return {}, list(argv)


def run(args: argparse.Namespace) -> int:
    """Run the cases; 1 if one of them fails.

    Raises:
        InputError: a wrong combination of options, or a wrong spec, file or case.
    """
    from nashtune.evaluation.vector_place import Place, vectors_of
    from nashtune.spec.resolve import resolve

    if args.all == bool(args.spec):
        raise InputError("vectors: give a SPEC or --all; run `nashtune list` for the names")
    if args.all and args.file:
        raise InputError("vectors: --file holds the cases of one method; give its SPEC instead of --all")
    if not args.all:
        spec = resolve(args.spec)
        try:
            place = Place(Path(args.file), spec, "") if args.file else vectors_of(spec)
        except InputError as error:
            raise InputError(f"{args.spec}: brings no vectors: {error}. Write them, or give --file") from error
        cases, passed = _run_spec(spec.name, place, quiet=args.json)
        if args.json:
            print_json({"cases": cases})
        return 0 if passed else 1
    return _run_all(as_json=args.json)


def _run_all(*, as_json: bool) -> int:
    from nashtune.evaluation.vector_place import vectors_of
    from nashtune.spec.locate import list_specs
    from nashtune.spec.resolve import resolve

    results, failed, without = [], [], []
    for name in sorted({listed.name for listed in list_specs()}):
        spec = resolve(name)
        try:
            place = vectors_of(spec)
        except InputError:
            without.append(name)
            continue
        cases, passed = _run_spec(name, place, quiet=as_json)
        results.append({"spec": name, "passed": passed, "cases": cases})
        failed += [] if passed else [name]
    if as_json:
        print_json({"specs": results, "without_vectors": without})
    else:
        say(f"{len(results)} specs, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
        for name in without:
            say(f"{name}: brings no vectors")
    return 1 if failed else 0


def _run_spec(name: str, place: Place, *, quiet: bool) -> tuple[list[dict[str, Any]], bool]:
    """Every case of a file: what `--json` shows of each, and whether all passed."""
    from nashtune.evaluation.vector_files import load_cases
    from nashtune.evaluation.vectors import compare, evaluate

    if place.lent:
        say(f"note: {name}: {place.lent}", file=sys.stderr)
    spec = place.spec
    shown, largest, passed, checked = [], 0.0, True, 0
    for i, case in enumerate(load_cases(place.file)):
        where = f"{place.file}: cases[{i}]"
        result = evaluate(spec, case, where)
        difference = compare(result, case, where)
        label = f"{name}, case {i + 1}" + (f" ({case['name']})" if "name" in case else "")
        if result.unread:
            say(f"note: {label}: {spec.loss.name} does not read {', '.join(result.unread)}", file=sys.stderr)
        shown.append(_as_dict(result, case, difference))
        if difference is None:
            if not quiet:
                say(f"{label}:\n{json.dumps(shown[-1], indent=2)}")
            continue
        checked += 1
        largest = max(largest, difference.size)
        if not difference.passed:
            passed = False
            detail = f"largest difference {difference.size:.3e}, tolerance {difference.tolerance:.0e}: {difference.at}"
            say(f"FAILED {label}: {detail}", file=sys.stderr)
    if checked and not quiet:
        verdict = "ok" if passed else "FAILED"
        say(f"{name}: cases checked {checked}, largest difference {largest:.1e}, {verdict}")
    return shown, passed


def _as_dict(result: CaseResult, case: Any, difference: Difference | None) -> dict[str, Any]:
    expected = case.get("expected", {})
    shown = {**result.outputs, **{name: value for name, value in result.further.items() if name in expected}}
    if difference is not None:
        shown |= {"passed": difference.passed, "largest_difference": difference.size}
    return shown

"""`nashtune diff`: what differs in meaning between two specs."""

from __future__ import annotations

import argparse
from typing import Any

from nashtune.cli.output import print_json, print_table
from nashtune.spec.model import COMPONENTS, NONE, Spec
from nashtune.spec.resolve import resolve
from nashtune.spec.types import describe
from nashtune.terminal import say

SUMMARY = "show what differs in meaning between two specs"
EPILOG = """\
Compared is what is trained: components by their class, and every argument with its default. Comments, order, the
`about` section and the way of writing do not count. A saved config.yaml of a run may stand for its spec.
Exit code, as of diff(1): 0 the two mean the same, 1 they differ, 2 one of them is wrong."""

ABSENT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune diff`."""
    parser.add_argument("a", metavar="A", help="name or file of a spec")
    parser.add_argument("b", metavar="B", help="name or file of another one")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the differences; 1 if there are any.

    Raises:
        InputError: one of the specs is wrong.
    """
    differences = compare(resolve(args.a), resolve(args.b))
    if args.json:
        print_json(differences)
    elif differences:
        rows = [(one["key"], _shown(one, "a"), _shown(one, "b")) for one in differences]
        print_table(["", args.a, args.b], rows)
    else:
        say(f"{args.a} and {args.b} mean the same")
    return 1 if differences else 0


def compare(a: Spec, b: Spec) -> list[dict[str, Any]]:
    """Differing keys in the order of the sections: `{"key": "kl.beta", "a": 0.1, "b": 0.01}`.

    A side whose component has no such option lacks its key.
    """
    left, right = _flat(a), _flat(b)
    differences = []
    for key in sorted({**left, **right}, key=lambda key: _order(key, [*left, *right])):
        one, other = left.get(key), right.get(key)
        if one is None or other is None or one[0] != other[0]:
            sides = {side: value[1] for side, value in (("a", one), ("b", other)) if value is not None}
            differences.append({"key": key, **sides})
    return differences


def _order(key: str, keys: list[str]) -> tuple[int, int]:
    section = key.partition(".")[0]
    return [one.partition(".")[0] for one in keys].index(section), keys.index(key)


def _flat(spec: Spec) -> dict[str, tuple[Any, Any]]:
    """Key -> (what is compared, what is shown)."""
    flat: dict[str, tuple[Any, Any]] = {section: (NONE, NONE) for section in COMPONENTS if section != "references"}
    for path, component in spec.components():
        dotted = ".".join(path)
        flat[dotted] = (component.target, component.name)
        flat |= {f"{dotted}.{key}": (value, value) for key, value in component.args.items()}
    for section, values in (("head", spec.head), ("optimizer", spec.optimizer)):
        flat |= {f"{section}.{key}": (value, value) for key, value in (values.to_dict() if values else {}).items()}
    return flat


def _shown(difference: dict[str, Any], side: str) -> str:
    if side not in difference:
        return ABSENT
    value = difference[side]
    return value if isinstance(value, str) else "none" if value is None else describe(value)

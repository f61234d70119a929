"""`nashtune show`: which equation is trained, with which values, and where each of them comes from."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nashtune.cli.output import console, print_json
from nashtune.plugins.classinfo import Argument, ClassInfo
from nashtune.plugins.static import class_info
from nashtune.spec.loader import display
from nashtune.spec.model import NONE, SECTIONS, Spec
from nashtune.spec.overrides import take_overrides
from nashtune.spec.reductions import reductions
from nashtune.spec.resolve import resolve
from nashtune.spec.types import describe
from nashtune.terminal import one_line

if TYPE_CHECKING:
    from rich.text import Text

SUMMARY = "show a spec: equation, conventions, every component and value with its origin"
EPILOG = """\
Settings on top of the spec are shown as they would be trained:
    nashtune show dpo --spec.kl.beta 0.5
    nashtune show runs/dpo-001/config.yaml"""

DEFAULT = "default"
HEADINGS = {"equation": "Minimised", "conventions": "Conventions", "values": "Known values"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune show`."""
    parser.add_argument("spec", metavar="SPEC", help="name or file of a spec, or a run's saved config.yaml")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a page")


def take(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take `--spec.x.y value` off the command line."""
    overrides, rest = take_overrides(argv)
    return {"overrides": overrides}, rest


def run(args: argparse.Namespace) -> int:
    """Print the page.

    Raises:
        InputError: the spec or a setting is wrong.
    """
    page = describe_spec(resolve(args.spec, args.overrides))
    if args.json:
        print_json(page)
    else:
        _print_page(page)
    return 0


def describe_spec(spec: Spec) -> dict[str, Any]:
    """Everything there is to show, as plain data."""
    components = []
    for path, component in spec.components():
        info = class_info(component.target)
        origin = component.origin
        components.append(
            {
                "key": ".".join(path),
                "name": component.name,
                "summary": info.summary,
                "plugin": origin.plugin if origin else None,
                "version": origin.version if origin else None,
                "class": info.target,
                "file": info.file,
                "line": info.line,
                "set_at": spec.places.get((*path, "name"), DEFAULT),
                "arguments": _arguments(spec, path, component.args, info),
            }
        )
    optimizer = class_info("nashtune.spec.model:OptimizerSpec")
    head = class_info("nashtune.spec.model:HeadSpec")
    return {
        "name": spec.name,
        "file": spec.file,
        "about": dict(spec.about),
        "components": components,
        "head": _arguments(spec, ("head",), spec.head.to_dict(), head) if spec.head else [],
        "optimizer": _arguments(spec, ("optimizer",), spec.optimizer.to_dict(), optimizer),
        "resolved": spec.to_dict(),
    }


def _arguments(spec: Spec, path: tuple[str, ...], values: Mapping[str, Any], info: ClassInfo) -> list[dict[str, Any]]:
    known: dict[str, Argument] = {argument.name: argument for argument in info.arguments}
    return [
        {
            "name": name,
            "value": value,
            "set_at": spec.places.get((*path, name), DEFAULT),
            "type": known[name].annotation,
            "doc": known[name].doc,
        }
        for name, value in values.items()
    ]


def _print_page(page: Mapping[str, Any]) -> None:
    from rich.text import Text

    about = page["about"]
    out = console()
    width = min(shutil.get_terminal_size((100, 24)).columns, 120) if sys.stdout.isatty() else 0
    head = [page["name"], about.get("kind"), about.get("paper"), page["file"]]
    out.print(Text(one_line(about.get("title", page["name"])), style="bold"), soft_wrap=True)
    out.print(Text(one_line("  ·  ".join(part for part in head if part)), style="dim"), soft_wrap=True)
    for title, lines in _said(about).items():
        if lines:
            out.print(Text(f"\n{title}", style="bold"))
            for paragraph in lines:
                out.print(_paragraph(paragraph, width))
    out.print(Text("\nComponents", style="bold"))
    for component in page["components"]:
        by = f"{component['plugin']} {component['version']}" if component["plugin"] else "class path"
        line = Text("  ").append(component["key"], style="cyan").append(": ").append(component["name"], style="bold")
        line.append(f"   {component['summary']}")
        out.print(line, soft_wrap=True)
        origin = f"    {by}, {display(component['file'])}:{component['line']}, set at {component['set_at']}"
        out.print(Text(origin, style="dim"), soft_wrap=True)
        _print_arguments(component["arguments"], out, width)
    absent = [section for section in SECTIONS if page["resolved"].get(section) == "none"]
    if absent:
        out.print(Text("  ").append(", ".join(absent), style="cyan").append(": none"), soft_wrap=True)
    if page["head"]:
        out.print(Text("\nScore head", style="bold"))
        _print_arguments(page["head"], out, width)
    out.print(Text("\nOptimiser", style="bold"))
    _print_arguments(page["optimizer"], out, width)


def _said(about: Mapping[str, Any]) -> dict[str, list[str]]:
    """Heading -> paragraphs, of what the spec says of itself."""
    known = reductions(about)
    older = about.get("reduces_to", NONE)  # text, in the run of an older version
    return {
        **{title: [about[key]] for key, title in HEADINGS.items() if key in about},
        "Is exactly": [str(one) for one in known if one.exact],
        "Is nearly": [str(one) for one in known if not one.exact],
        "Reduces to": [older] if isinstance(older, str) and older != NONE else [],
    }


def _print_arguments(arguments: Sequence[Mapping[str, Any]], out: Any, width: int) -> None:
    from rich.text import Text

    names = max((len(argument["name"]) for argument in arguments), default=0)
    values = [_value(argument["value"]) for argument in arguments]
    size = max(map(len, values), default=0)
    for argument, value in zip(arguments, values, strict=True):
        line = Text("    ").append(argument["name"].ljust(names), style="cyan")
        line.append("  ").append(value.ljust(size), style="bold").append(f"  {argument['set_at']}", style="dim")
        out.print(line, soft_wrap=True)
        if argument["doc"]:
            out.print(_paragraph(argument["doc"], width, indent=names + 6))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else describe(value)


def _paragraph(text: str, width: int, indent: int = 2) -> Text:
    from rich.text import Text

    lines = textwrap.wrap(text, max(width - indent, 40), break_long_words=False) if width else text.split("\n")
    return Text("\n".join(" " * indent + line for line in lines), no_wrap=True, overflow="ignore")

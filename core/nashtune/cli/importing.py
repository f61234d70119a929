"""`nashtune import`: a config of another tool as a spec and a run file, checked, with what could not be taken over."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nashtune.cli.import_report import as_dict, print_import
from nashtune.cli.output import print_json
from nashtune.errors import CheckFailed, InputError
from nashtune.importing import files
from nashtune.importing.config import read_config
from nashtune.importing.tables import load_table
from nashtune.importing.translate import translate
from nashtune.spec.findings import Collector, Findings
from nashtune.spec.loader import display, load_yaml
from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs
from nashtune.spec.runcheck import check_run
from nashtune.spec.runoptions import check_settings

if TYPE_CHECKING:
    from nashtune.spec.model import Spec
    from nashtune.spec.run import Runs

SUMMARY = "turn a config of TRL, LLaMA-Factory or Axolotl into a spec and a run file"
EPILOG = """\
Writes NAME.spec.yaml and NAME.run.yaml, NAME being that of the config, and checks them as `nashtune check` does:
    nashtune import trl dpo_config.yaml --trainer dpo
    nashtune import llamafactory qwen_dpo.yaml --out imported
A key without counterpart is an error, with file and line; with --allow-lossy it is left out, and both the screen and
the file say so. Values that the config leaves open are written out as that tool's defaults. Nothing of the config is
executed; Python files and pickles are not read.
A file that is there already is never overwritten: with the same text it stays, with another one nothing is written.
Exit code 0: written and checked. 1: written, but the check found something that has to be settled before training,
such as rows that are not there. 2: nothing was written."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune import`."""
    parser.add_argument("tool", metavar="TOOL", help="trl, llamafactory or axolotl")
    parser.add_argument("file", metavar="FILE", help="the config: YAML or JSON")
    parser.add_argument("--out", metavar="FOLDER", default=".", help="where to write; the current folder if not given")
    parser.add_argument(
        "--trainer",
        default="",
        metavar="NAME",
        help="the tool's trainer that the config is for, where its keys do not say",
    )
    parser.add_argument("--allow-lossy", action="store_true", help="write although keys have no counterpart")
    parser.add_argument("--json", action="store_true", help="print what became of every key as JSON")


def run(args: argparse.Namespace) -> int:
    """Translate, write, check and report.

    Raises:
        InputError: the tool, the config or a value is wrong, or a key has no counterpart; nothing is written.
        CheckFailed: the files are written, and the check found something.
    """
    table = load_table(args.tool)
    file, folder = Path(args.file), Path(args.out)
    config = read_config(file, table.names(), table.renamed)
    spec_file, run_file = files.names(file, folder)
    translation = translate(config, table, args.trainer)
    losses = translation.losses()
    if args.allow_lossy:
        losses = []
    if translation.conflicts or losses:
        hints = [_hint(len(losses))] if losses else ["nothing was written"]
        raise Findings([*translation.conflicts, *losses, *hints])
    texts = files.render(translation, config.source, display(spec_file), display(run_file))
    spec, runs = _settled(texts, spec_file, run_file)
    new = files.missing((spec_file, run_file), texts)
    files.write(new)
    findings, notes = _checked(spec, runs)
    if args.json:
        print_json(as_dict(translation, spec_file, run_file, findings, notes, new))
    else:
        print_import(translation, config.source, spec_file, run_file, notes, new)
    if findings:
        raise CheckFailed(f"before this can be trained (nashtune check says the same):\n{_indented(findings)}")
    return 0


def _hint(count: int) -> str:
    keys = "1 key has" if count == 1 else f"{count} keys have"
    return (
        f"{keys} no counterpart here, and nothing was written; remove what you can do without, or add --allow-lossy, "
        "which leaves all of them out and says so in the file"
    )


def _settled(texts: tuple[str, str], spec_file: Path, run_file: Path) -> tuple[Spec, Runs]:
    """Spec and run file as they would be read, so that a wrong value is found before anything is written."""
    found = Collector()
    spec = None
    with found.catch():
        spec = resolve(load_yaml(texts[0], display(spec_file)))
    with found.catch():
        runs = load_runs([load_yaml(texts[1], display(run_file))])
        check_settings(runs, partial=True)
    if found.lines:
        raise Findings(
            [*(_at_origin(line, texts, (spec_file, run_file)) for line in found.lines), "nothing was written"]
        )
    assert spec is not None, "no spec without a finding"
    return spec, runs


def _at_origin(finding: str, texts: tuple[str, str], paths: tuple[Path, Path]) -> str:
    """A finding about a line of a file that is not written, at the line of the config that it comes from."""
    for text, path in zip(texts, paths, strict=True):
        place, colon, rest = finding.removeprefix(f"{display(path)}:").partition(": ")
        if finding.startswith(f"{display(path)}:") and colon and place.isdecimal():
            key, _, where = text.splitlines()[int(place) - 1].rpartition("  # ")[2].rpartition(", ")
            return f"{where}: {key}: {rest}" if key else finding
    return finding


def _checked(spec: Spec, runs: Runs) -> tuple[list[str], list[str]]:
    """What `nashtune check` finds, and its notes."""
    try:
        return [], check_run(spec, runs).notes
    except Findings as error:
        return error.lines, []
    except InputError as error:
        return [str(error)], []


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)

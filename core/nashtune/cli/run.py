"""`nashtune run`: a pipeline, stage by stage, in one command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nashtune.cli.output import print_json, print_table, progress
from nashtune.errors import InputError
from nashtune.pipeline.folder import SAVED, choose_folder, held, refuse_another, save
from nashtune.pipeline.journal import Record
from nashtune.pipeline.load import PREFIX, load_pipeline, run_option
from nashtune.pipeline.runner import check_stages, refuse_changed_settings, run_stages

SUMMARY = "run a pipeline: several stages in one command, such as filter, reward model, PPO"
EPILOG = """\
Sections of a run file are for all stages, --stages.NAME is for one:
    nashtune run methodology_dpo --config demo --run_dir runs/first
    nashtune run methodology_dpo --config demo --stages.filter.q 0.9 --stages.dpo.run.trainer.max_steps 20
The same command again, or --run_dir alone, goes on with a pipeline that was stopped; what is done is not done again:
    nashtune run --run_dir runs/first
`nashtune list --pipelines` shows the pipelines that are known by name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune run`."""
    parser.add_argument(
        "pipeline", nargs="?", metavar="PIPELINE", help="name or file of a pipeline (default: the one in --run_dir)"
    )
    parser.add_argument(
        "--config",
        "-c",
        metavar="RUN",
        action="append",
        default=[],
        help="run file by name or path, which may have a section `stages`; may be given several times, layered",
    )
    parser.add_argument("--run_dir", help="folder of the pipeline (default: runs/PIPELINE-NNN)")
    parser.add_argument("--json", action="store_true", help="print a JSON list of the stages instead of a table")


def take(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take sections of a run file and `--stages.NAME.KEY` off the command line: they have no fixed set of options."""
    taken: dict[str, list[str]] = {"own": [], "options": []}
    rest: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        option = token.partition("=")[0]
        if option == "--spec" or option.startswith("--spec."):
            raise InputError(
                f"{option}: the stages of a pipeline name their specs; for one stage: "
                f"--stages.NAME.{'spec' if option == '--spec' else f'run.{option[2:]}'}"
            )
        group = "own" if option.startswith(PREFIX) else "options"
        if group == "options" and (option == "--run_dir" or not run_option(token)):
            rest.append(token)
            continue
        taken[group].append(token)
        if "=" not in token:
            taken[group] += [value for value in (next(tokens, None),) if value is not None]
    return taken, rest


def run(args: argparse.Namespace) -> int:
    """Check everything, then work.

    Raises:
        InputError: anything is wrong, or a stage fails.
    """
    pipeline = load_pipeline(_source(args), args.config, args.options, args.own)
    planned = check_stages(pipeline)
    folder = choose_folder(args.run_dir or pipeline.run_dir, pipeline.name)
    say = progress(as_json=args.json)
    with held(folder) as lock:
        refuse_another(folder, pipeline)
        refuse_changed_settings(pipeline, planned, folder)
        save(folder, pipeline)
        say(f"pipeline {pipeline.name}: {len(pipeline.stages)} stages in {folder}")
        for stage in pipeline.stages:
            for note in (*stage.notes, *planned[stage.name].notes):
                say(f"  {stage.name}: {note}")
        records = run_stages(
            pipeline,
            planned,
            folder,
            say,
            lock=lock,
            stdout=2 if args.json else None,  # stdout is for the JSON alone
        )
    if args.json:
        print_json([_entry(record, folder) for record in records])
        return 0
    rows = [
        [record.stage, record.component, f"{record.seconds:.1f}", record.summary, _made(record, folder)]
        for record in records
    ]
    print_table(["stage", "kind", "seconds", "result", "made"], rows)
    return 0


def _source(args: argparse.Namespace) -> str:
    if args.pipeline is not None:
        return str(args.pipeline)
    if args.run_dir is None:
        raise InputError(
            "run: which pipeline? Give its name or file, such as methodology_dpo, or the --run_dir of one to go on "
            "with; `nashtune list --pipelines` shows the names"
        )
    saved = Path(args.run_dir) / SAVED
    if not saved.is_file():
        raise InputError(f"--run_dir: no {saved}, hence no pipeline to go on with; give its name or file")
    return str(saved)


def _entry(record: Record, folder: Path) -> dict[str, Any]:
    outputs = {name: str(folder / output["path"]) for name, output in record.outputs.items()}
    return {
        "stage": record.stage,
        "kind": record.component,
        "seconds": record.seconds,
        "summary": record.summary,
        "outputs": outputs,
        "numbers": record.numbers,
    }


def _made(record: Record, folder: Path) -> str:
    """The first output: what later stages and people use."""
    return str(folder / next(iter(record.outputs.values()))["path"])

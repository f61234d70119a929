"""`nashtune export`: a run's trained model as a Hugging Face folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nashtune.errors import InputError
from nashtune.terminal import say

SUMMARY = "save a run's model as a Hugging Face folder with a model card"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("run", type=Path, help="run folder (its newest checkpoint) or a checkpoint file")
    parser.add_argument("--out", type=Path, help="folder to make (default: RUN/export, or RUN/export-merged)")
    parser.add_argument("--merged", action="store_true", help="LoRA: add the adapter into the weights")
    parser.add_argument("--json", action="store_true", help="print the folder as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the folder and say where it is."""
    from nashtune.files import cannot_write
    from nashtune.training.export import export_run

    try:
        folder = export_run(args.run, args.out, merged=args.merged)
    except Exception as error:
        if (problem := cannot_write(error)) is None:
            raise
        raise InputError(f"{problem}; nothing was exported. Make room, or choose another folder with --out") from error
    say(json.dumps({"folder": str(folder)}) if args.json else f"exported to {folder}")
    return 0

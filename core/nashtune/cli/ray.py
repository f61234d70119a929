"""`nashtune ray`: a training command, started on the machines of a Ray cluster."""

from __future__ import annotations

import argparse
import os

from nashtune.errors import InputError, nearest
from nashtune.trust import grants

SUMMARY = "start fit, validate, test or predict on the machines of a Ray cluster (ddp)"
EPILOG = (
    "Give it on one machine of the cluster. --trainer.num_nodes says on how many machines the run is,\n"
    "--trainer.devices how many processes each of them has, each with a GPU where the cluster has any.\n"
    "It ends with the exit code of the run, and needs the extra: pip install 'nashtune[ray]'."
)
STARTED = ("fit", "validate", "test", "predict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME",
        help="hand this environment variable on to the processes as well, a judge's key; may be given several times",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND ...",
        help="fit --spec dpo --config run.yaml --run_dir DIR --trainer.devices 8 --trainer.strategy ddp ...",
    )


def run(args: argparse.Namespace) -> int:
    """Check what can be checked here, start the processes, and wait for their end."""
    command, argv = _taken_apart(args.command)

    from nashtune.onray.cluster import launch, ray_library
    from nashtune.onray.environment import handed_on, outside_slurm
    from nashtune.onray.layout import layout_of, refuse_inside
    from nashtune.spec.runoptions import precheck

    refuse_inside(os.environ)
    told = handed_on(os.environ, args.env)
    with outside_slurm(os.environ):
        precheck(argv)
        layout = layout_of(argv)
    ray_library()
    return launch(layout, [command, *argv, *grants().arguments()], told)


def _taken_apart(words: list[str]) -> tuple[str, list[str]]:
    if not words:
        raise InputError("nashtune ray: which command? For example `nashtune ray fit --spec dpo ...`")
    if words[0] not in STARTED:
        raise InputError(f"nashtune ray: '{words[0]}' is not started on a cluster{nearest(words[0], STARTED)}")
    if {"-h", "--help"} & set(words):
        raise InputError(f"nashtune ray: its options are those of the command; run `nashtune {words[0]} --help`")
    return words[0], words[1:]

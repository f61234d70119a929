"""`nashtune new`: begin a plugin of one's own."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from nashtune.authoring.names import check_free, spell
from nashtune.authoring.template import find_template, render, write_folder
from nashtune.terminal import say

SUMMARY = "begin a plugin of your own: a distribution with a loss, a spec, vectors and tests that pass"
EPILOG = """\
NAME is the distribution's: a-z, 0-9 and hyphens. The package, the plugin, the loss and the spec are called the same,
with underscores; the class has its words in capitals. What is installed already keeps its name.
    nashtune new my-method
    nashtune new my-method --out ~/work/my-method"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune new`."""
    parser.add_argument("name", metavar="NAME", help="name of the new distribution, such as my-method")
    parser.add_argument("--out", metavar="FOLDER", help="folder to make; NAME in the current one when left out")


def run(args: argparse.Namespace) -> int:
    """Render the template into a new folder, and say what comes next.

    Raises:
        InputError: the name is none or is taken, or the folder is there already or cannot be written.
    """
    names = spell(args.name)
    check_free(names)
    shown = names.distribution if args.out is None else args.out
    files = render(find_template(), names)
    write_folder(Path(os.path.abspath(Path(shown).expanduser())), files)
    steps = {
        f"cd {shlex.quote(shown)}": "",
        "pip install -e '.[test]'": "beside nashtune",
        "nashtune plugins": f"lists {names.package}",
        "pytest": "what is asked of every component and spec, two training steps among it",
        f"nashtune fit --spec {names.package} --config demo --trainer.max_steps 2": "on a small real model",
    }
    say(f"{shown}: {len(files)} files, a plugin that works. Next:\n")
    for command, comment in steps.items():
        say(f"  {command:<26} # {comment}" if comment else f"  {command}")
    say(f"\nYour equation goes into {names.package}/loss.py; README.md says what to change after it, in order.")
    return 0

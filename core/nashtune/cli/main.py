"""The entry point. Each command's module is imported only when it is chosen, so that `list` never waits for torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import nashtune
from nashtune.errors import CheckFailed, InputError, Interrupted, nearest

LIGHTNING: dict[str, str] = {
    "fit": "train a model by a spec",
    "validate": "measure a checkpoint on the validation rows",
    "test": "measure a checkpoint on the test rows",
    "predict": "implicit rewards of every held-out row, as JSON lines",
}
"""Commands of the Lightning CLI, which reads the rest of the command line."""

THIN: dict[str, str] = {
    "list": "list the specs that are known by name",
    "show": "show a spec: equation, conventions, every component and value with its origin",
    "diff": "show what differs in meaning between two specs",
    "check": "check a spec, and a run, without loading a model",
    "schema": "print the JSON schema of spec files, for editors",
    "plugins": "list plugins: name, version, status, components, failure reason",
}
"""Commands that never import torch."""

HEAVY: dict[str, str] = {
    "vectors": "check a spec's loss and gradients against known numbers, in float64",
    "verify": "run a method on preference matrices, exactly, and measure its distance from equilibrium",
    "controller": "run a spec's KL controller on a simulated plant, and say whether it settles",
    "frontier": "best-of-n overoptimisation: true reward and proxy against sqrt KL, and fitted laws",
    "export": "save a run's model as a Hugging Face folder with a model card",
    "run": "run a pipeline: several stages in one command, such as filter, reward model, PPO",
}
"""Commands of ours that import torch."""

COMMANDS = {**LIGHTNING, **THIN, **HEAVY}
TRACEBACK = "NASHTUNE_TRACEBACK"


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as `InputError`, in one line and with the nearest name."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing pages of usage."""
        raise InputError(f"{message}; run `{self.prog} --help`")

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse, and refuse what is left over.

        Raises:
            InputError: an unknown option or an argument too many.
        """
        args, extra = self.parse_known_args(argv)
        if extra:
            word = extra[0].partition("=")[0]
            if word.startswith("-"):
                raise InputError(f"unknown option {word}{nearest(word, self._option_string_actions)}")
            self.error(f"unexpected argument '{word}'")
        return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 the check failed, 2 the input was wrong."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without β must not stop a run
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except InputError as error:
        _raise_if_asked(error)
        for line in getattr(error, "lines", None) or [str(error)]:
            print(f"error: {line}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.code
    except CheckFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `nashtune list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _raise_if_asked(error: Exception) -> None:
    if os.environ.get(TRACEBACK, "") not in ("", "0"):
        raise error


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    command, rest = argv[0], argv[1:]
    if command == "--version":
        print(f"nashtune {nashtune.__version__}")
        return 0
    if command not in COMMANDS:
        what = "option" if command.startswith("-") else "command"
        known = ["--help", "--version"] if what == "option" else list(COMMANDS)
        raise InputError(f"unknown {what} '{command}'{nearest(command, known)}; run `nashtune --help`")
    if command in LIGHTNING:
        if not {"-h", "--help"} & set(rest):
            import_module("nashtune.spec.runoptions").precheck(rest)  # a typo must not wait for torch
        code: int = import_module("nashtune.cli.lightning").run(command, rest)
        return code
    return _run(import_module(f"nashtune.cli.{command}"), command, rest)


def _run(module: ModuleType, command: str, argv: list[str]) -> int:
    parser = Parser(
        prog=f"nashtune {command}",
        description=module.SUMMARY[:1].upper() + module.SUMMARY[1:] + ".",
        epilog=getattr(module, "EPILOG", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    extra = {}
    if hasattr(module, "take") and not {"-h", "--help"} & set(argv):
        extra, argv = module.take(argv)  # options that argparse cannot declare: --spec.kl.beta 0.2
    try:
        args = parser.parse_all(argv)
    except SystemExit as done:  # --help has printed
        return int(done.code or 0)
    for name, value in extra.items():
        setattr(args, name, value)
    code: int = module.run(args)
    return code


def _help() -> str:
    groups = {
        "Train and evaluate (--spec NAME_OR_FILE --config RUN_FILE --a.b.c VALUE; --help lists all)": LIGHTNING,
        "Look before you train (no torch, well under a second)": THIN,
        "Prove and take away": HEAVY,
    }
    lines = [
        "usage: nashtune COMMAND [OPTIONS]",
        "",
        "Declarative preference alignment of language models: a spec names loss, KL controller and schedule.",
    ]
    for title, commands in groups.items():
        lines += ["", f"{title}:", *(f"  {name:<10} {summary}" for name, summary in commands.items())]
    lines += [
        "",
        "nashtune COMMAND --help explains a command; nashtune --version prints the version.",
        "Exit codes: 0 done, 1 the check failed, 2 the input was wrong.",
        f"{TRACEBACK}=1 shows where in the code an error was raised.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

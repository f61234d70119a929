"""The command line. Each command's module is imported only when it is chosen, so that `list` never waits for torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import nashtune
from nashtune.cli.commands import COMMANDS, LIGHTNING, MODULES, READ_NO_CODE, TRACEBACK, WRITE_IT_DOWN, overview
from nashtune.errors import CheckFailed, InputError, Interrupted, nearest
from nashtune.terminal import message
from nashtune.trust import granted, take_grants


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
    _open_streams()
    try:
        code = _answered(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `nashtune list | head`: the reader has seen enough
        return _unread()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # of a console that Lightning or a plugin has made
            return _unread()
        raise


def _answered(argv: list[str]) -> int:
    """The exit code of a command; what ended it is said on stderr."""
    try:
        return _dispatch(argv)
    except InputError as error:
        _raise_if_asked(error)
        lines = getattr(error, "lines", None)  # none at all where another rank says the same
        for line in [str(error)] if lines is None else lines:
            print(message(f"error: {line}"), file=sys.stderr, flush=True)
        if error.afterwards is not None:
            error.afterwards()
        return 2
    except Interrupted as error:
        print(message(str(error)), file=sys.stderr)
        return error.code
    except CheckFailed as error:
        print(message(f"failed: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _open_streams() -> None:
    """Make both take whatever is printed.

    One that the caller has closed (`>&-`) is None in Python, and the next file opened would get its number: what C code
    prints would end up in there.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without β must not stop a run


def _unread() -> int:
    """The exit code where nobody reads what is printed; what is still to be printed goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 141


def _raise_if_asked(error: Exception) -> None:
    if os.environ.get(TRACEBACK, "") not in ("", "0"):
        raise error


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    command, rest = argv[0], argv[1:]
    if command == "--version":
        print(f"nashtune {nashtune.__version__}")
        return 0
    if command not in COMMANDS:
        what = "option" if command.startswith("-") else "command"
        known = ["--help", "--version"] if what == "option" else list(COMMANDS)
        raise InputError(f"unknown {what} '{command}'{nearest(command, known)}; run `nashtune --help`")
    if command in WRITE_IT_DOWN:
        _refuse_other_bytes(rest)
    if command in READ_NO_CODE:
        return _command(command, rest)
    trusted, rest = take_grants(rest)
    with granted(**trusted):
        return _command(command, rest)


def _refuse_other_bytes(words: Sequence[str]) -> None:
    """Refuse a word that cannot be written into a file of text, before anything is made."""
    for number, word in enumerate(words):
        try:
            word.encode()
        except UnicodeEncodeError:  # bytes that the system hands on as they are
            shown = os.fsencode(word).decode(errors="backslashreplace")
            option = next((one for one in words[max(number - 1, 0) : number] if one.startswith("--")), "the command")
            raise InputError(
                f"{option}: {shown} is no UTF-8, and a run writes down what it was given; use another name, or a link "
                "to it that has one"
            ) from None


def _command(command: str, rest: list[str]) -> int:
    if command in LIGHTNING:
        if not {"-h", "--help"} & set(rest):
            import_module("nashtune.spec.runoptions").precheck(rest)  # a typo must not wait for torch
        code: int = import_module("nashtune.cli.lightning").run(command, rest)
        return code
    return _run(import_module(f"nashtune.cli.{MODULES.get(command, command)}"), command, rest)


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

"""What a user trusts beyond what is installed: said on the command line, for that command alone, in no file.

Importing a module runs its code, and so does a model that brings its own. Neither is done because a spec, a run file, a
checkpoint or a model's configuration asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nashtune.errors import InputError

IMPORT = "--allow-import"
REMOTE = "--trust_remote_code"
OPTIONS = {
    IMPORT: "PREFIX: classes of this package or module may be named by their path; may be given several times",
    REMOTE: "MODEL: the code that this model brings may run; the model as policy.path names it; several times",
}
"""Option -> what it takes and does, for help."""


@dataclass
class Grants:
    """What one command may do.

    Args:
        imports: Packages or modules whose classes may be named by their path.
        models: Models as the user names them: a folder, or `hub:owner/name`.
        folders: Folders that turned out to be those models'.
    """

    imports: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    folders: set[Path] = field(default_factory=set)

    def arguments(self) -> list[str]:
        """The options that say the same, for a command that this one starts."""
        pairs = [*((IMPORT, prefix) for prefix in self.imports), *((REMOTE, model) for model in self.models)]
        return [word for pair in pairs for word in pair]


_now = Grants()


def grants() -> Grants:
    """Of the command that is running."""
    return _now


@contextmanager
def granted(imports: Iterable[str] = (), models: Iterable[str] = ()) -> Iterator[Grants]:
    """Trust packages and models while a block runs, besides what is trusted outside of it.

    Args:
        imports: Packages or modules, such as `my_package` or `my_package.losses`.
        models: As `policy.path` names them.

    Raises:
        InputError: one of them is no such name.
    """
    global _now
    before = _now
    _now = Grants((*before.imports, *map(_prefix, imports)), (*before.models, *map(_model, models)))
    try:
        yield _now
    finally:
        _now = before


def take_grants(argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Take `--allow-import PREFIX` and `--trust_remote_code MODEL` off a command line.

    Returns:
        Arguments of `granted`, and the rest of the command line as it was.

    Raises:
        InputError: one of them lacks its value.
    """
    taken: dict[str, list[str]] = {IMPORT: [], REMOTE: []}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        option = next((one for one in taken if _alike(one) == _alike(name)), None)
        if option is None or not name.startswith("--"):
            rest.append(word)
            continue
        if not equals:
            value = next(words, "--")
        if not value or value.startswith("--"):
            raise InputError(f"{option} needs a value: {OPTIONS[option].partition(';')[0]}")
        taken[option].append(value)
    return {"imports": taken[IMPORT], "models": taken[REMOTE]}, rest


def within(module: str, prefix: str) -> bool:
    """Whether a module is a package or lies below it."""
    return module == prefix or module.startswith(f"{prefix}.")


def _alike(option: str) -> str:
    return option.replace("_", "-")


def _prefix(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise InputError(
            f"{IMPORT} {text}: is no package; write one by its name, such as my_package or my_package.losses"
        )
    return text


def _model(text: str) -> str:
    if text.lower() in ("true", "false", "yes", "no", "all", "*"):
        raise InputError(
            f"{REMOTE} {text}: is no model. Trust is given to one model at a time, named as policy.path names it: a "
            "folder, or hub:owner/name"
        )
    return text

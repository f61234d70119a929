"""Stage: one step of a pipeline, with a folder of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from nashtune.spec.run import Runs


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a stage is going to do.

    Args:
        settings: Everything that its result depends on, as plain data. A run that goes on must have the same, but for
            what `Stage.placement` and `Stage.decides` name.
        files: Files and folders that it reads; their content is compared as well. References to outputs of earlier
            stages (`@filter/train`) may stand among them.
        notes: What was found to be right, in sentences.
    """

    settings: Mapping[str, Any]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where and how a stage works.

    Args:
        folder: The stage's own. It holds what an earlier, killed attempt has left; finished parts are used again.
        say: Prints a line of progress.
        stdout: File descriptor for what commands that the stage starts print; None for this process's own.
        inherit: File descriptors that such commands inherit: the lock on the folder, which they hold as long as they
            live.
    """

    folder: Path
    say: Callable[[str], None]
    stdout: int | None = None
    inherit: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage has made.

    Args:
        outputs: Files and folders below the stage's folder, one for each of `Stage.outputs`.
        summary: For the final table, a few words with numbers.
        numbers: Plain data, for `--json`.
        open: Outputs that other commands may still add to, so that their content is not compared later.
    """

    outputs: Mapping[str, Path]
    summary: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    open: tuple[str, ...] = ()


class Stage(ABC):
    """One step of a pipeline. Its module and its constructor import no torch; `run` may.

    Attributes:
        outputs: Names of what it makes; later stages write `@STAGE/NAME`.
        placement: Arguments that say how it works and not what comes out, but for rounding: a run that goes on may
            change them.
        decides: Arguments that are read only after the costly work, whose parts are kept: a stage that has begun and is
            not done goes on with others. Once it is done, they are settings like all others.
    """

    outputs: ClassVar[tuple[str, ...]] = ()
    placement: ClassVar[tuple[str, ...]] = ()
    decides: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def check(self, runs: Runs) -> Planned:
        """Check everything that can be known before the first stage starts.

        Args:
            runs: The run's sections with the stage's own on top. Strings that begin with `@` are outputs to come.

        Raises:
            InputError: what is wrong, all of it.
        """

    @abstractmethod
    def run(self, runs: Runs, work: Work) -> Outcome:
        """Do the work, or what an earlier attempt has left of it: however it was killed, the outputs are the same.

        Args:
            runs: As `check` had them, each reference replaced by the path of the output.
            work: Folder and voice.

        Raises:
            InputError: it cannot be done.
        """

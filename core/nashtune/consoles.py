"""The console of everything that is printed through rich."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from rich import console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from nashtune.terminal import plain


class Console(console.Console):
    """Shows what others wrote without obeying it, and leaves a pipe that nobody reads to the command line."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, in `plain` text; what steers the terminal is rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)

    def on_broken_pipe(self) -> NoReturn:
        """Raise as a plain `print` does; rich would end the process, with exit code 1 and not a word.

        Raises:
            BrokenPipeError: always.
        """
        self.quiet = True  # what it still holds must not be written again
        raise BrokenPipeError

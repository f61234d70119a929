r"""What goes to a terminal: text that cannot steer it, and a progress bar.

Names, titles and messages come from files and plugins of others. A control character among them could clear the screen
or write a line that looks like one of ours, so it is shown as its escape (`\x1b`) wherever text leaves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

Item = TypeVar("Item")

MESSAGE = 8000
"""Characters of a message at most; what is wrong stands at its beginning, and the next step at its end."""
_HARMLESS = "\n\t\u200c\u200d"
"""Besides what is printable: ends of lines, and the two that join letters or keep them apart."""
_LONG_WORD = re.compile(r"[^\s/]{400,}")
_NEXT_LINE = re.compile(r"\n(?=\S)")


def plain(text: str) -> str:
    """The text with an escape for each character that is not to be seen, but for ends of lines and tabs.

    Letters and spaces of all scripts stay; marks that turn the direction of writing do not.
    """
    if text.isprintable():
        return text
    return "".join(one if _is_harmless(one) else ascii(one)[1:-1] for one in text)


def one_line(text: str) -> str:
    r"""`plain`, with an escape for ends of lines and tabs, too: a name, a cell of a table."""
    return plain(text).replace("\n", "\\n").replace("\t", "\\t")


def message(text: str) -> str:
    """`plain`, cut to what can be read, and lines after the first indented: none begins as a message of its own."""
    return _NEXT_LINE.sub("\n  ", plain(_cut(text)))


def say(text: str = "", *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print what may have parts that others wrote.

    Args:
        text: Lines of it.
        file: Where to; None for standard output.
        flush: At once.
    """
    print(plain(text), file=file, flush=flush)


def with_bar(items: Iterable[Item], description: str) -> Iterator[Item]:
    """The items, with a bar while they are gone through; on standard error and on one rank."""
    # here, so that the quick commands import none of it
    from rich.progress import track

    from nashtune.consoles import Console
    from nashtune.ranks import rank

    yield from track(
        items,
        description=description,
        total=len(items) if isinstance(items, Sized) else None,
        console=Console(stderr=True),
        disable=rank() != 0,
        transient=True,
    )


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _HARMLESS or unicodedata.category(character) == "Zs"


def _cut(text: str) -> str:
    """A message without the length of what it repeats: a number of a million digits, a list of all rows."""
    words = _LONG_WORD.sub(lambda word: f"{word[0][:60]}... ({len(word[0])} characters)", text)
    gone = len(words) - MESSAGE
    return words if gone <= 0 else f"{words[: MESSAGE // 2]} ... ({gone} characters) ... {words[-MESSAGE // 2 :]}"

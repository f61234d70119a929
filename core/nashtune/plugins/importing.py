"""While a plugin is imported: a word where it takes long, and its name where Ctrl-C ends it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from nashtune.errors import Interrupted
from nashtune.plugins.record import BLOCK
from nashtune.terminal import message

SLOW_SECONDS = 8.0
"""After which a plugin that is still being imported is named, once."""


@contextmanager
def named(plugin: str) -> Iterator[None]:
    """Run a plugin's own code, so that it is known whose code is running.

    Args:
        plugin: Name of its entry point.

    Raises:
        Interrupted: Ctrl-C, or a plugin that raises what Ctrl-C raises.
    """
    out = f"{BLOCK}={plugin} leaves it out"
    slow = message(f"nashtune: still importing plugin '{plugin}'; {out}")
    word = Timer(SLOW_SECONDS, lambda: print(slow, file=sys.stderr))
    word.daemon = True
    word.start()
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted while plugin '{plugin}' was imported; {out}", code=130) from error
    finally:
        word.cancel()

"""What a class says that does not implement all of its interface; the class is imported."""

from __future__ import annotations

import difflib
import inspect
from types import FunctionType

from nashtune.plugins.component import article


def lacking(cls: type, kind: str) -> str:
    """For the end of a message: `does not implement compare, which an oracle must (mine.py:3)`; "" where nothing lacks.

    A function of nearly that name is shown: `; it has compares: did you mean 'compare'?`.
    """
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if not inspect.isabstract(cls) or not missing:
        return ""
    try:
        where = f" ({inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]})"
    except (OSError, TypeError):  # made without a text
        where = ""
    bodies = [vars(one) for one in cls.__mro__ if not one.__module__.startswith("nashtune.interfaces")]
    own = [name for body in bodies for name, value in body.items() if isinstance(value, FunctionType)]
    near = [(one, match[0]) for one in missing if (match := difflib.get_close_matches(one, own, n=1, cutoff=0.7))]
    guess = "".join(f"; it has {found}: did you mean '{one}'?" for one, found in near[:1])
    return f"does not implement {', '.join(missing)}, which {article(kind)} must{where}{guess}"

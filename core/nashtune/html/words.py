"""Numbers, intervals, times and YAML, as readers like to see them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from markupsafe import Markup, escape

NOTHING = "–"
Item = TypeVar("Item")
KEY = re.compile(r"^(\s*(?:- )?)([^\s:#'\"][^:]*)(:)(?=\s|$)(.*)$")


def finite(value: float | None) -> float | None:
    """None for what JSON cannot say: NaN and infinities."""
    return None if value is None or not math.isfinite(value) else float(value)


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """So many significant digits, with a true minus; "–" where there is no number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):{'+' if sign else ''},}".replace(",", " ")
    else:
        text = f"{value:{'+' if sign else ''}.{digits}g}"
    return text.replace("-", "−")


def fixed(value: float | None, places: int, *, sign: bool = False) -> str:
    """So many places behind the point."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:{'+' if sign else ''}.{places}f}".replace("-", "−")


def interval(low: float | None, high: float | None, places: int = 2) -> str:
    """Both ends of an interval; "" where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{fixed(low, places)} to {fixed(high, places)}"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours: two units at most."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def highlighted(text: str) -> Markup:
    """YAML with its keys and comments marked; everything else is escaped."""
    return Markup("\n").join(_line(line) for line in text.splitlines())


def _line(line: str) -> Markup:
    if line.lstrip().startswith("#"):
        return Markup('<span class="comment">{}</span>').format(line)
    found = KEY.match(line)
    if found is None:
        return escape(line)
    indent, key, colon, rest = found.groups()
    return Markup('{}<span class="key">{}</span>{}{}').format(indent, key, colon, rest)


def thinned(values: Sequence[Item], most: int) -> list[Item]:
    """At most so many of a list, evenly, the first among them, and the last if there is room for two."""
    if len(values) <= most:
        return list(values)
    places = sorted({round(k * (len(values) - 1) / max(1, most - 1)) for k in range(most)})
    return [values[place] for place in places]


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last

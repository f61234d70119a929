"""One HTML file with its styles, its script and its data inside, and a policy that lets nothing in from outside.

What models have written is hostile input. It reaches the page as JSON in a data block, which no browser runs, with `<`,
`>` and `&` escaped so that it cannot end the block; the script puts it into the page as text, never as HTML. Should any
of this fail, the policy still runs no script but the one whose hash it names, and opens no connection.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nashtune import __version__
from nashtune.html import words

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """Templates with autoescape; `|tojson` refuses NaN, which JSON does not have."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    found.filters |= {"number": words.number, "interval": words.interval, "yaml": words.highlighted}
    return found


def page(template: str, **values: Any) -> str:
    """A whole page, which UTF-8 can hold.

    Args:
        template: Name of a template that extends `base.html.j2`.
        **values: What it shows.
    """
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made = (
        environment()
        .get_template(template)
        .render(
            style=Markup(_part("style.css")),
            script=Markup(script),
            policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'",
            nashtune=__version__,
            **values,
        )
    )
    # half of a surrogate pair, which JSON can bring into a run's files, stands there as its number
    return made.encode("utf-8", errors="backslashreplace").decode()


def _part(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")

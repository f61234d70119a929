"""Secrets belong into no file: what a spec or run file says is stored with the run, its checkpoints and its card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from nashtune.spec.loader import KeyPath
from nashtune.spec.types import Typed

NAMES = re.compile(
    r".*(token|keys?|pwd|passwd|password|passphrase|secret|authorization|credentials?)", re.IGNORECASE | re.DOTALL
)
"""Names of options that hold a secret when they hold text or a number; `api_key_env` (a variable's name) does not."""
HARMLESS = re.compile(
    r"(.*[_-])?((eos|bos|pad|unk|cls|sep|mask|image|stop|start|end|first|last|per|new|max|min|num)[_-]?token"
    r"|(sort|sort[_-]by|group|group[_-]by|name|cache|index|row|column|prompt|chosen|rejected|experiment|public)[_-]keys?)",
    re.IGNORECASE,
)
"""Names that end so and hold none: tokens of a tokenizer, counts, columns."""
SIGNATURES = re.compile(r"sig|.*signature", re.IGNORECASE)
"""Names of an address's parameters that give access as a secret does."""
ADDRESS = re.compile(r"(?<![\w+.-])([a-zA-Z][\w+.-]{0,30})://([^/\s@?#]+)@")
"""An address with a user in it: its scheme, and `user` or `user:password`."""
URL = re.compile(r"(?<![\w+.-])[a-zA-Z][\w+.-]{0,30}://\S+")
VALUES = re.compile(
    r"(?<![\w-])(sk-(?=[\w-]{0,200}\d)[\w-]{20,}|(ghp|gho|ghs|ghu|ghr|hf)_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}(?!\w)|AIza[\w-]{30,}|bearer\s+[\w.~+/=-]{8,})"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----",
    re.IGNORECASE,
)
"""Keys as OpenAI, GitHub, Hugging Face, GitLab, Slack, Amazon and Google write them, and headers with one."""
HINT = "it would be stored with the run; put it into an environment variable"


def find_secrets(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """(key path, problem) of everything that looks like a secret; the problem does not repeat it.

    Args:
        value: Sections of a run file, or arguments of a component.
        path: Of the value.
    """
    value = value.value if isinstance(value, Typed) else value
    if isinstance(value, Mapping):
        for key, part in value.items():
            if _is_name(str(key)) and _is_given(part):
                yield (*path, key), f"a secret is not given here: {HINT}"
            else:
                yield from find_secrets(part, (*path, key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from find_secrets(part, (*path, number))
    elif isinstance(value, str) and (problem := _problem(value)):
        yield path, f"{problem}: {HINT}"


def _is_name(name: str) -> bool:
    return NAMES.fullmatch(name) is not None and HARMLESS.fullmatch(name) is None


def _is_given(value: Any) -> bool:
    """Whether there is text or a number, alone or in a list."""
    value = value.value if isinstance(value, Typed) else value
    if isinstance(value, list | tuple):
        return any(_is_given(part) for part in value)
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _problem(text: str) -> str | None:
    for scheme, user in ADDRESS.findall(text):
        if user.partition(":")[2] or scheme.lower() in ("http", "https"):  # abfss://container@account has no secret
            return "the address holds a user name or password"
    if VALUES.search(text):
        return "this looks like a key"
    for address in URL.findall(text):
        if any(value and (_is_name(name) or SIGNATURES.fullmatch(name)) for name, value in _parameters(address)):
            return "the address holds a secret among its parameters"
    return None


def _parameters(address: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(address).query)
    except ValueError:  # no address after all
        return []

from __future__ import annotations

import ast

import pytest

from nashtune.plugins.annotations import annotation_text
from nashtune.plugins.source import read_module

HEAD = """
import typing as t
from typing import Annotated, Literal, Optional, Union
import jsonargparse.typing
from jsonargparse.typing import PositiveFloat, PositiveInt as Count
from nashtune.interfaces.batch import RowKind

Update = Literal["mean", "X | None"]
Rate = PositiveFloat
Maybe = Optional[Rate]

class Own: ...
"""


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("float", "float"),
        ("'float | None'", "float | None"),
        ("Optional[int]", "int | None"),
        ("t.Optional[int]", "int | None"),
        ("Union[int, str, None]", "int | str | None"),
        ("PositiveFloat", "PositiveFloat"),
        ("Count", "PositiveInt"),
        ("jsonargparse.typing.PositiveFloat | None", "PositiveFloat | None"),
        ("t.Literal['sum', 'None']", "Literal['sum', 'None']"),
        ("Update", "Literal['mean', 'X | None']"),
        ("list[Rate]", "list[PositiveFloat]"),
        ("dict[str, Maybe]", "dict[str, PositiveFloat | None]"),
        ("Annotated[float, 'unit']", "float"),
        ("RowKind", "Literal['pairs', 'examples', 'rollouts', 'ranked', 'comparisons']"),
        ("Own", "Own"),
        ("Unknown", "Unknown"),
    ],
)
def test_an_annotation_is_written_in_one_vocabulary(site, written, plain):
    site.file("annotated_mod.py", HEAD)
    node = ast.parse(written, mode="eval").body
    assert annotation_text(read_module("annotated_mod"), node) == plain


def test_no_annotation_is_empty(site):
    site.file("annotated_mod.py", HEAD)
    assert annotation_text(read_module("annotated_mod"), None) == ""

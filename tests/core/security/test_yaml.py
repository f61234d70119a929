"""YAML is data: no tags, no objects, no more of it than a person would write."""

from __future__ import annotations

from pathlib import Path

import pytest

from nashtune.errors import InputError
from nashtune.spec.loader import LARGEST, load_yaml, read_yaml


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['true']",
        "a: !!python/name:os.system",
        "!!python/module:os {}",
        "a: !include /etc/passwd",
        "a: !!binary aGk=",
    ],
)
def test_a_tag_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"bad\.yaml:1: the tag .* is not read: a spec holds plain data, no code"):
        load_yaml(text, "bad.yaml")


def test_a_bomb_of_aliases_is_refused() -> None:
    """Nine lines that mean 9^8 values."""
    lines = ["a: &a [1,1,1,1,1,1,1,1,1]"]
    lines += [f"{name}: &{name} [{','.join(['*' + chr(ord(name) - 1)] * 9)}]" for name in "bcdefgh"]
    with pytest.raises(InputError, match=r"bad\.yaml:\d+: more than 100000 values, aliases \(\*name\) written out"):
        load_yaml("\n".join(lines), "bad.yaml")


def test_an_alias_that_contains_itself_and_a_tower_of_brackets() -> None:
    with pytest.raises(InputError, match="an alias that contains itself"):
        load_yaml("a: &a [*a]", "bad.yaml")
    with pytest.raises(InputError, match="nested too deeply"):
        load_yaml("[" * 5000 + "]" * 5000, "bad.yaml")


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 100_000, "- " * 100_000])
def test_a_tower_that_would_end_the_process(text: str) -> None:
    """PyYAML's C code calls itself for each bracket, and no exception comes of that."""
    with pytest.raises(InputError, match=r"bad\.yaml:1: broken YAML: nested too deeply"):
        load_yaml(text, "bad.yaml")


def test_a_file_of_many_megabytes(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: " + "x" * (LARGEST + 1))
    for read in (lambda: load_yaml("x" * (LARGEST + 1), "bad.yaml"), lambda: read_yaml(tmp_path / "bad.yaml")):
        with pytest.raises(InputError, match=r"bad\.yaml: more than 4 MiB"):
            read()


def test_aliases_that_a_person_writes_are_read() -> None:
    assert load_yaml("a: &x {b: 1}\nc: *x\nd: [*x, *x]", "good.yaml").data["d"] == [{"b": 1}, {"b": 1}]

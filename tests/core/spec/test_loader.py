from __future__ import annotations

import importlib.util
import math
import os
import sys
from pathlib import Path

import pytest
import yaml

from nashtune.errors import InputError
from nashtune.spec.loader import load_yaml, read_yaml

LONG = ("0x" + "f" * 5000, "0o" + "7" * 5000, "9" * 5002)


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        load_yaml(text, "onpo.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-7", -7),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("012", "012"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
    ],
)
def test_scalars_are_read_as_yaml_1_2_says(text, value):
    read = load_yaml(f"a: {text}", "f.yaml").data["a"]
    assert read == value
    assert type(read) is type(value)


def test_infinity_and_nan_are_numbers():
    data = load_yaml("{a: .inf, b: -.Inf, c: .nan}", "f.yaml").data
    assert data["a"] == math.inf
    assert data["b"] == -math.inf
    assert math.isnan(data["c"])


def test_every_key_knows_its_line():
    located = load_yaml("a: 1\nloss:\n  name: dpo\n  betas:\n    - 0.9\n    - 0.99\n", "f.yaml")
    assert located.line(("a",)) == 1
    assert located.line(("loss", "name")) == 3
    assert located.line(("loss", "betas", 1)) == 6
    assert located.where(("loss", "name")) == "f.yaml:3"


def test_a_key_that_is_not_there_has_the_line_of_the_one_above():
    located = load_yaml("a: 1\nloss:\n  name: dpo\n", "f.yaml")
    assert located.where(("loss", "tau")) == "f.yaml:2"
    assert located.where(("nothing",)) == "f.yaml:1"


def test_a_section_keeps_its_lines():
    section = load_yaml("a: 1\nspec:\n  kl:\n    beta: 2\n", "run.yaml").section("spec")
    assert section.data == {"kl": {"beta": 2}}
    assert section.where(("kl", "beta")) == "run.yaml:4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "onpo.yaml:3: 'a' is given twice (first on line 1)"),
        ("kl:\n  beta: 1\n  beta: 2", "onpo.yaml:3: 'beta' is given twice (first on line 2)"),
        ("kl: {beta: 1, beta: 2}", "onpo.yaml:1: 'beta' is given twice"),
        ("a: [1, 2", "onpo.yaml:1: broken YAML"),
        ("a: [1,\nb: 2\nc: 3\n", "(begun on line 1)"),
        ("a: b: c", "onpo.yaml:1: broken YAML"),
        ("a:\n\tb: 1", "onpo.yaml:2: broken YAML"),
        ("a: 'x", "broken YAML"),
        ("a: *nobody", "onpo.yaml:1: broken YAML"),
        ("a: \x01", "onpo.yaml:1: broken YAML: control characters"),
        ("a: 1\n---\nb: 2", "broken YAML: expected a single document"),
        ("a: &x [*x]", "onpo.yaml:1: broken YAML: an alias that contains itself"),
        ("[" * 5000, "onpo.yaml"),
        ("a: !!python/object/apply:os.system [ls]", "a spec holds plain data, no code"),
        ("a: !function f.g", "onpo.yaml:1: the tag !function is not read"),
        ("1: x", "onpo.yaml:1: a key must be a word, found 1"),
        ("? [a]\n: 1", "a key must be a word, found a list or mapping"),
        ("~: 1", "a key must be a word"),
        ("a: !!int x", "onpo.yaml:1: 'x' is not a int"),
        *((f"a: {digits}", "onpo.yaml:1: a number of 5002 characters is too long") for digits in LONG),
    ],
)
def test_what_is_refused(text, said):
    assert said in refused(text)


def test_an_alias_repeats_its_value():
    assert load_yaml("a: &x {b: 1}\nc: *x", "f.yaml").data == {"a": {"b": 1}, "c": {"b": 1}}


def test_on_is_an_ordinary_key():
    assert load_yaml("on: 1\noff: 2", "f.yaml").data == {"on": 1, "off": 2}


def test_an_empty_file_holds_nothing():
    assert load_yaml("# only a comment\n", "f.yaml").data is None


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path):
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(InputError, match=r"latin.yaml:2: not UTF-8"):
        read_yaml(file)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path):
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(file).data == {"a": 1}


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "pipe.yaml")
    for name in ("pipe.yaml", "link.yaml"):
        with pytest.raises(InputError, match=rf"{name}: is a pipe or device, not a file"):
            read_yaml(tmp_path / name)


def test_the_pure_python_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    origin = importlib.util.find_spec("nashtune.spec.loader")
    assert origin is not None and origin.origin is not None
    described = importlib.util.spec_from_file_location("slow_loader", origin.origin)
    assert described is not None and described.loader is not None
    slow = importlib.util.module_from_spec(described)
    monkeypatch.setitem(sys.modules, "slow_loader", slow)
    described.loader.exec_module(slow)
    text = "a: 1e-5\nb: [on, 012]\nc: {d: ~}\n"
    read, fast = slow.load_yaml(text, "f.yaml"), load_yaml(text, "f.yaml")
    assert slow._Base is yaml.SafeLoader
    assert (read.data, read.lines) == (fast.data, fast.lines)
    with pytest.raises(InputError, match=r"f.yaml:2: 'a' is given twice"):
        slow.load_yaml("a: 1\na: 2", "f.yaml")
    with pytest.raises(InputError, match=r"f.yaml:1: broken YAML"):
        slow.load_yaml("a: b: c", "f.yaml")

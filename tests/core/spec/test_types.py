from __future__ import annotations

import jsonschema
import pytest

from nashtune.spec.annotations import RESTRICTED, parse
from nashtune.spec.types import Anything, Mismatch, Typed


def refused(annotation: str, value: object) -> str:
    with pytest.raises(Mismatch) as caught:
        parse(annotation).check(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        ("int", 3, 3),
        ("float", 3, 3.0),
        ("float", 1e-5, 1e-5),
        ("str", "abc", "abc"),
        ("bool", True, True),
        ("PositiveFloat", 0.1, 0.1),
        ("PositiveInt", 1, 1),
        ("NonNegativeInt", 0, 0),
        ("NonNegativeFloat", 0, 0.0),
        ("ClosedUnitInterval", 1, 1.0),
        ("OpenUnitInterval", 0.5, 0.5),
        ("float | None", None, None),
        ("float | None", "none", None),
        ("Optional[float]", 2, 2.0),
        ("Union[int, str]", "a", "a"),
        ("str | None", "none", "none"),
        ("Literal['sum', 'mean']", "sum", "sum"),
        ("Literal[1, 2]", 2, 2),
        ("Literal[True, 'x']", True, True),
        ("list[float]", [1, 2.5], [1.0, 2.5]),
        ("Sequence[str]", ["a"], ["a"]),
        ("tuple[float, float]", [1, 2], [1.0, 2.0]),
        ("tuple[int, ...]", [1, 2, 3], [1, 2, 3]),
        ("dict[str, float]", {"a": 1}, {"a": 1.0}),
        ("list[str] | Literal['all-linear']", "all-linear", "all-linear"),
        ("list[str] | Literal['all-linear']", ["q_proj"], ["q_proj"]),
        ("typing.Literal['a']", "a", "a"),
        ("'PositiveInt | None'", 4, 4),
        ("Annotated[float, 'a note']", 2, 2.0),
        ("SomeClass", object, object),
        ("", 5, 5),
        ("not python (", 5, 5),
    ],
)
def test_values_that_fit(annotation, value, result):
    checked = parse(annotation).check(value)
    assert checked == result
    assert type(checked) is type(result)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        ("float", "1e-5x", "expected a number, found '1e-5x'"),
        ("float", True, "expected a number, found true"),
        ("float", None, "expected a number, found nothing"),
        ("float", float("nan"), "expected a number, found nan"),
        ("float", float("inf"), "expected a number, found inf"),
        ("float", 10**400, "expected a number, found 1000"),
        ("int", 3.0, "expected a whole number, found 3.0"),
        ("int", "012", "'012' (a number with leading zeros is text)"),
        ("PositiveFloat", 0, "expected a number > 0, found 0"),
        ("PositiveFloat", -1, "expected a number > 0, found -1"),
        ("PositiveInt", 0, "expected a whole number > 0, found 0"),
        ("ClosedUnitInterval", 1.5, "expected a number >= 0 and <= 1, found 1.5"),
        ("OpenUnitInterval", 1, "expected a number > 0 and < 1, found 1"),
        ("bool", "yes", "expected true or false, found 'yes'"),
        ("bool", 1, "expected true or false, found 1"),
        ("str", 5, "expected text, found 5"),
        ("str", {"a": 1}, "expected text, found a mapping"),
        ("float | None", "abc", "expected a number or none, found 'abc'"),
        ("Literal['sum', 'mean']", "summ", "expected 'sum' or 'mean', found 'summ'; did you mean 'sum'?"),
        ("Literal[1, 2]", True, "found true"),
        ("list[float]", 3, "expected a list, each item a number, found 3"),
        ("list[float]", [1, "x"], "expected a number, found 'x'"),
        ("tuple[float, float]", [1], "expected a list of 2: a number, a number, found [1]"),
        ("dict[str, float]", [1], "expected a mapping, found [1]"),
    ],
)
def test_values_that_do_not_fit(annotation, value, said):
    assert said in refused(annotation, value)


def test_a_mismatch_says_which_part_it_is():
    with pytest.raises(Mismatch) as caught:
        parse("dict[str, list[float]]").check({"a": [1, 2], "b": [1, "x"]})
    assert caught.value.path == ("b", 1)


@pytest.mark.parametrize(
    ("annotation", "text", "value", "result"),
    [
        ("float", "1e-5", 1e-5, 1e-5),
        ("str", "123", 123, "123"),
        ("str", "true", True, "true"),
        ("int | str", "5", 5, 5),
        ("int | str", "five", "five", "five"),
        ("str | None", "none", "none", None),
        ("Literal['1', '2']", "1", 1, "1"),
        ("list[int]", "[1, 2]", [1, 2], [1, 2]),
        ("Any", "3", 3, 3),
    ],
)
def test_what_is_typed_is_read_as_the_option_wants_it(annotation, text, value, result):
    assert parse(annotation).check(Typed(text, value)) == result


def test_the_restricted_types_are_those_of_jsonargparse():
    typing = pytest.importorskip("jsonargparse.typing")
    samples = [-1, -0.5, 0, 0.0, 0.5, 1, 1.0, 2, 2.5]
    assert set(RESTRICTED) <= set(typing.__all__)
    for name, (base, _) in RESTRICTED.items():
        theirs = getattr(typing, name)
        assert theirs._type is base
        for sample in samples:
            try:
                theirs(sample)
            except ValueError:
                refused(name, sample)
            else:
                if base is float or isinstance(sample, int):
                    assert parse(name).check(sample) == sample


def test_a_restricted_type_of_ones_own_is_read():
    half = "restricted_number_type('Half', float, [('>=', 0), ('<', 0.5)])"
    assert parse(half).check(0.25) == 0.25
    assert "expected a number >= 0 and < 0.5, found 0.5" in refused(half, 0.5)


def test_a_name_outside_the_vocabulary_is_looked_up():
    asked: list[str] = []

    def lookup(name: str) -> None:
        asked.append(name)

    assert parse("Widget | None", lookup).check(object) is object
    assert asked == ["Widget"]
    assert parse("Widget") == Anything()


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("PositiveFloat", 0.1, 0),
        ("int", 3, 3.5),
        ("bool", True, "yes"),
        ("str | None", None, 5),
        ("Literal['sum', 'mean']", "sum", "summ"),
        ("list[float]", [1.5], ["a"]),
        ("tuple[float, float]", [1, 2], [1]),
        ("dict[str, int]", {"a": 1}, {"a": "b"}),
    ],
)
def test_the_json_schema_says_the_same(annotation, good, bad):
    schema = parse(annotation).schema()
    validator = jsonschema.Draft7Validator(schema)
    validator.check_schema(schema)
    assert validator.is_valid(good)
    assert not validator.is_valid(bad)

from __future__ import annotations

import pytest

from nashtune.html.words import duration, fixed, highlighted, interval, listed, number, thinned


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
        (0.0, "0"),
        (-0.01234, "−0.0123"),
        (1234567, "1 234 567"),
        (1e-7, "1e−07"),
        (2.0, "2"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_signs_places_and_intervals():
    assert number(0.5, sign=True) == "+0.5" and fixed(-0.5, 2) == "−0.50" and fixed(None, 2) == "–"
    assert interval(0.25, 0.75) == "0.25 to 0.75" and interval(None, 1.0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (42.4, "42 s"), (75.0, "1 min 15 s"), (7260.0, "2 h 1 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_yaml_is_escaped_and_its_keys_are_marked():
    text = highlighted("# <a>\nloss:\n  name: <b>\n  - x: 1\ntext: a: b\n'quoted': 1")
    assert str(text).split("\n") == [
        '<span class="comment"># &lt;a&gt;</span>',
        '<span class="key">loss</span>:',
        '  <span class="key">name</span>: &lt;b&gt;',
        '  - <span class="key">x</span>: 1',
        '<span class="key">text</span>: a: b',
        "&#39;quoted&#39;: 1",
    ]


def test_thinning_keeps_both_ends():
    assert thinned(list(range(100)), 4) == [0, 33, 66, 99] and thinned([1, 2], 4) == [1, 2]
    assert thinned([1, 2, 3], 1) == [1]
    assert listed(["a", "b", "c"]) == "a, b and c" and listed(["a"]) == "a"

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest

from nashtune.html.drawing import DIGIT, LETTER, WIDTH, scale, shortened
from nashtune.html.intervals import Row, interval_figure
from nashtune.html.lines import BOTTOM, MOST_POINTS, RIGHT, TOP, Series, line_figure, moving_mean
from nashtune.html.matrix import rate_cell
from nashtune.html.plane import Plane, Point
from nashtune.html.scatter import scatter_figure


def test_a_scale_ends_at_round_values_and_its_ticks_are_inside():
    found = scale([0.13, 0.87], 200.0, 0.0)
    assert (found.low, found.high) == (0.0, 1.0)
    assert found(0.0) == 200.0 and found(1.0) == 0.0 and found(0.25) == 150.0
    assert list(found.ticks) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_tight_scale_ends_at_the_values_and_a_single_value_has_room():
    steps = scale([1, 64], 0.0, 100.0, whole=True, tight=True)
    assert (steps.low, steps.high) == (1, 64) and all(1 <= tick <= 64 for tick in steps.ticks)
    one = scale([2.5], 0.0, 100.0)
    assert one.low < 2.5 < one.high


def series(count: int) -> Series:
    return Series("training pairs", [(float(i), math.sin(i)) for i in range(count)], noisy=True)


def figure(*drawn: Series):
    return line_figure("f", "Loss", drawn, about="Loss.", x_name="step", unit="nats", reference=0.5)


def test_a_curve_runs_through_its_points():
    found = figure(Series("a", [(0.0, 0.0), (10.0, 1.0)], dots=True))
    (path,) = (mark for mark in found.marks if mark.kind == "path")
    left = 10 + 3 * DIGIT  # beside 0.5
    assert path.at["d"] == f"M{left:g} {BOTTOM:g}L{RIGHT:g} {TOP:g}"
    dots = [mark for mark in found.marks if mark.kind == "circle"]
    assert [dot.title for dot in dots] == ["step 0: a 0", "step 10: a 1"]
    assert found.values is not None and found.values.rows == [["0", "0"], ["10", "1"]]


def test_a_long_curve_keeps_its_spikes():
    points = [(float(i), 0.0) for i in range(50_000)]
    points[31_337] = (31_337.0, 1.0)
    (path,) = (mark for mark in figure(Series("", points)).marks if mark.kind == "path")
    places = re.findall(r"[ML]([\d.]+) ([\d.]+)", str(path.at["d"]))
    assert len(places) <= 1.05 * MOST_POINTS
    assert min(float(y) for _, y in places) == TOP


def test_a_noisy_curve_has_its_mean_beside_it_and_the_table_is_thinned():
    found = figure(series(400))
    assert [mark.style for mark in found.marks if mark.kind == "path"] == ["line pale c0", "line c0"]
    assert found.values is not None
    assert len(found.values.rows) == 40 and found.values.note == "40 of 400 points, evenly"
    assert found.values.rows[0][0] == "0" and found.values.rows[-1][0] == "399"


def test_the_moving_mean_is_over_the_steps_around():
    assert moving_mean([1.0] * 8 + [4.0] * 8) == [1.0] * 7 + [2.0, 3.0] + [4.0] * 7
    assert moving_mean([3.0, 1.0]) == [2.0, 2.0]


def test_without_points_a_figure_says_so():
    found = line_figure("f", "β", [Series("", [])], about="", x_name="", unit="", empty="not part of this method")
    assert not found.marks and found.empty == "not part of this method"


def test_an_interval_is_drawn_from_low_to_high():
    found = interval_figure(
        "f", "Elo", [Row("dpo", 1100.0, 1050.0, 1180.0, 1), Row("start", 1000.0)], about="", unit="Elo", places=0
    )
    whiskers = [mark.at for mark in found.marks if mark.style == "whisker c1" and mark.at["y1"] == mark.at["y2"]]
    dots = [mark for mark in found.marks if mark.kind == "circle"]
    assert len(whiskers) == 1 and len(dots) == 2
    assert float(whiskers[0]["x1"]) < float(dots[0].at["cx"]) < float(whiskers[0]["x2"]) < WIDTH
    assert float(dots[1].at["cx"]) < float(whiskers[0]["x1"])
    assert found.values is not None and found.values.rows == [["dpo", "1100", "1050 to 1180"], ["start", "1000", ""]]


def test_bars_begin_at_zero():
    found = interval_figure("f", "Nash", [Row("a", 0.75), Row("b", 0.25)], about="", unit="p", bars=True, within=(0, 1))
    first, second = (mark.at for mark in found.marks if mark.kind == "rect")
    assert first["x"] == second["x"]
    assert float(first["width"]) == pytest.approx(3 * float(second["width"]), abs=0.05)


def test_names_of_points_do_not_lie_on_each_other():
    points = [Point(f"policy{i}", x, 0.5) for i, x in enumerate((1.0, 1.02, 1.04, 3.0))]
    found = scatter_figure("f", "", points, Plane(x_name="x", y_name="y"), about="")
    boxes = []
    for mark in found.marks:
        if mark.style == "name":
            x, y, width = float(mark.at["x"]), float(mark.at["y"]), LETTER * len(mark.text)
            left = x - {"start": 0.0, "middle": width / 2, "end": width}[str(mark.at["text-anchor"])]
            boxes.append((left, y - 11, left + width, y + 3))
    assert len(boxes) == 4
    for (a, b, c, d), (e, f, g, h) in combinations(boxes, 2):
        assert c <= e or g <= a or d <= f or h <= b


def test_names_that_are_too_long_are_cut():
    assert shortened("a" * 10, 100) == "a" * 10
    assert shortened("a" * 40, 100) == "a" * 13 + "…"


@pytest.mark.parametrize(
    ("rate", "low", "high", "side", "strength", "sure"),
    [
        (0.9, 0.8, 0.95, "win", 100, True),
        (0.3, 0.2, 0.55, "loss", 50, False),
        (0.5, 0.5, 0.5, "none", 0, False),
        (0.6, None, None, "win", 25, False),
    ],
)
def test_a_cell_is_coloured_by_its_distance_from_one_half(rate, low, high, side, strength, sure):
    found = rate_cell(rate, low, high, "a over b")
    assert (found.side, found.strength, found.sure) == (side, strength, sure)
    assert found.text == f"{rate:.2f}" and found.title.startswith(f"a over b: {rate:.3f}")


def test_a_cell_without_a_rate_is_empty():
    assert rate_cell(float("nan"), None, None, "a over b").text == "–"

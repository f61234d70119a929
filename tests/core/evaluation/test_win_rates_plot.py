from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nashtune.evaluation.win_rates import WinRates, win_rates
from nashtune.evaluation.win_rates_plot import draw_game, draw_win_rates

VERIFIED: dict[str, Any] = {
    "game": "weighted_rps",
    "rounds": 2,
    "duality_gap": {"last": [0.2, 0.18, 0.0], "average": [0.2, 0.19, 0.18]},
    "regularised_gap": {"last": [0.05, 0.04, 0.03]},
    "bound": {"formula": "(2D/η + 2η)/T", "values": [None, 1.6, 0.8]},
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def some(m: int) -> WinRates:
    answers = {f"main@{i}": [f"{i}{n}" for n in range(4)] for i in range(m)}
    return win_rates(
        ["p"] * 4,
        answers,
        lambda p, a, b: np.array([0.75 if x > y else 0.25 for x, y in zip(a, b, strict=True)]),
        seed=0,
    )


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def test_the_matrix_shows_every_win_rate_and_its_interval(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_win_rates(some(3), tmp_path / "w.png", title="onpo")
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert texts.count("0.75") == 3 + 1 and texts.count("0.25") == 3 + 1  # one more each among the averages
    assert texts.count("0.50") == 1 and texts.count("0.75–0.75") == 4
    assert drawn[0].get_suptitle() == "onpo"
    assert [path.name for path in tmp_path.iterdir()] == ["w.png"]


def test_the_game_is_drawn_next_to_the_exact_one(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_game(some(2), VERIFIED, tmp_path / "both.png", title="x")
    draw_game(some(2), None, tmp_path / "one.png", title="x")
    assert png_size(tmp_path / "both.png")[0] > 1.5 * png_size(tmp_path / "one.png")[0]
    exact = drawn[0].axes[1]
    assert exact.get_yscale() == "log" and "weighted_rps" in exact.get_title()
    curves = {str(line.get_label()): line.get_xydata().tolist() for line in exact.lines}
    assert curves["last policy"] == [[0, 0.2], [1, 0.18], [2, 1e-16]]
    assert curves["average policy"] == [[0, 0.2], [1, 0.19], [2, 0.18]]
    assert curves["average policy, bound (2D/η + 2η)/T"] == [[1, 1.6], [2, 0.8]]
    assert len(curves) == 4
    assert len(drawn[1].axes) == 1


def test_a_spec_without_regularisation_and_bound_has_two_curves(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_game(some(2), {**VERIFIED, "regularised_gap": {"last": None}, "bound": None}, tmp_path / "x.png", title="x")
    assert len(drawn[0].axes[1].lines) == 2


def test_a_bound_that_is_out_of_sight_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    bound = {"formula": "4D/T", "values": [5.0, 3.0, 2.0]}
    draw_game(some(2), {**VERIFIED, "game": ["rps", "condorcet"], "bound": bound}, tmp_path / "x.png", title="x")
    exact = drawn[0].axes[1]
    assert exact.lines[-1].get_label() == "average policy, bound 4D/T (above 1 so far)"
    assert "rps, condorcet" in exact.get_title()
    assert exact.get_ylim()[1] == 1.15

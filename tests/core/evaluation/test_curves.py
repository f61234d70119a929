from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nashtune.evaluation.curves import draw_curves
from nashtune.evaluation.report import Metrics

STEPS = range(1, 30)
PAIRS = {"train/loss": [(s, 1.0 / s) for s in STEPS], "train/accuracy": [(s, 0.6) for s in STEPS]}
ROLLOUTS = {
    "train/loss": [(s, 0.1) for s in STEPS],
    **{
        f"rollout/{name}": [(s, float(s)) for s in STEPS if s % 4 == 1]
        for name in ("reward", "reward_std", "kl_ref_k1", "kl_ref_k3", "variance", "beta", "length")
    },
}


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Of each panel that was drawn: points of its curves."""
    found: dict[str, list[int]] = {}
    save = Figure.savefig

    def look(figure: Figure, *args: object, **settings: object) -> None:
        found.update(
            {axis.get_title(): [int(np.size(line.get_xdata())) for line in axis.lines] for axis in figure.axes}
        )
        save(figure, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", look)
    return found


def test_reinforcement_learning_shows_reward_kl_variance_and_beta(tmp_path: Path, panels: dict[str, list[int]]) -> None:
    draw_curves(Metrics(ROLLOUTS), tmp_path / "curves.png", title="rloo")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    rounds = len(ROLLOUTS["rollout/reward"])
    assert panels == {
        "Reward": [rounds],
        "KL to the reference": [rounds, rounds],
        "Variance of the reward": [rounds],
        "KL control": [rounds],
        "Answer length": [rounds],
        "Loss": [len(STEPS), len(STEPS)],  # and its moving mean
    }


def test_a_reward_model_shows_its_scores(tmp_path: Path, panels: dict[str, list[int]]) -> None:
    lists = {**PAIRS, "train/best_over_worst": [(s, 0.7) for s in STEPS]}
    del lists["train/accuracy"]
    draw_curves(Metrics(lists), tmp_path / "curves.png", title="reward_pl", scores=True)
    assert len(panels["Preference accuracy"]) == 3  # with moving mean and the line of chance
    assert panels["Mean score"] == []


def test_other_runs_show_what_they_did_before(tmp_path: Path, panels: dict[str, list[int]]) -> None:
    draw_curves(Metrics({"train/loss": [(1, 0.7)]}), tmp_path / "curves.png", title="dpo")
    assert list(panels) == ["Loss", "Preference accuracy", "Implicit reward margin", "KL control"]
    assert not list(tmp_path.glob(".*partial*"))


def test_a_loss_has_no_unit_of_another_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DPO's is in nats, IPO's in their squares, a hinge loss has none."""
    units: list[str] = []

    def look(figure: Figure, *args: object, **settings: object) -> None:
        units.extend(axis.get_ylabel() for axis in figure.axes if axis.get_title() == "Loss")
        Path(str(args[0])).write_bytes(b"")

    monkeypatch.setattr(Figure, "savefig", look)
    for scores in (False, True):
        draw_curves(Metrics(PAIRS), tmp_path / "curves.png", title="ipo", scores=scores)
    assert units == ["mean of the step's rows"] * 2

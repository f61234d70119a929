from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nashtune.games import Game
from nashtune.games.report import Report
from nashtune.games.verify import Sampling, verify
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import resolve
from nashtune.trust import granted


@pytest.fixture(autouse=True)
def own_components() -> Iterator[None]:
    """Tests name classes of their own by their path."""
    with granted(["tests", "test_runner"]):
        yield


@pytest.fixture
def play() -> Callable[..., Report]:
    """Run a spec on games: `play("onpo", [game], rounds=3, loss={"eta": 0.5})`."""

    def run(
        spec: str | dict[str, Any],
        games: list[Game],
        rounds: int | None = None,
        sampling: Sampling | None = None,
        **sections: Any,
    ) -> Report:
        if rounds is not None:
            sections.setdefault("schedule", {})["rounds"] = rounds
        settings = [
            Override((section, key), value, "test")
            for section, options in sections.items()
            for key, value in options.items()
        ]
        return verify(resolve(spec, settings), games, sampling)

    return run

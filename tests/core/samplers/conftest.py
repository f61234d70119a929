from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live_models import Live, sharpened
from nashtune.interfaces.sampler import Surroundings
from nashtune.samplers import vllm_client
from nashtune.testing import tiny_model
from vllm_bench import Bench
from vllm_stub import Stub


@pytest.fixture(scope="package")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("sampler") / "tiny", tie=False)


@pytest.fixture(scope="module")
def live(untied: Path) -> Live:
    # float64: a draw must not hang on how float32 matrix products round in batches of another shape
    return Live(untied, sharpened(untied))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between attempts, without waiting."""
    seconds: list[float] = []
    monkeypatch.setattr(vllm_client, "pause", lambda wait, cancelled: seconds.append(wait))
    return seconds


@pytest.fixture
def bench(untied: Path, load: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a `Bench` with so many servers, which are closed when the test is over."""
    made: list[Stub] = []

    def make(servers: int = 1, folder: Path = untied, **settings: Any) -> Bench:
        policy = load(folder, **settings)
        made.extend(Stub(folder) for _ in range(servers))
        around = Surroundings(policy=policy, tokenizer=policy.tokenizer(), run_dir=str(tmp_path / "run"))
        return Bench(policy, around, made[-servers:])

    yield make
    for stub in made:
        stub.close()

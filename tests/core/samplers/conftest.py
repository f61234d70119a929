from __future__ import annotations

from pathlib import Path

import pytest

from live_models import Live, sharpened
from nashtune.testing import tiny_model


@pytest.fixture(scope="package")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("sampler") / "tiny", tie=False)


@pytest.fixture(scope="module")
def live(untied: Path) -> Live:
    # float64: a draw must not hang on how float32 matrix products round in batches of another shape
    return Live(untied, sharpened(untied))

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")  # as training does, before the first product
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # as the command line does before it imports it

import random
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from lab import Lab, pair_rows, write_rows
from nashtune.testing import tiny_model

if TYPE_CHECKING:
    from nashtune.models.policy import HFPolicy


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Rows and log-probs that tests keep do not go among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASHTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_seed() -> None:
    """What a test draws without a seed of its own is the same each time.

    Torch seeds itself anew in every process, and two workers share out the tests as it comes.
    """
    random.seed(0)
    if (numpy := sys.modules.get("numpy")) is not None:  # who draws has imported it
        numpy.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random model."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def lightning_log() -> None:
    """Import Lightning while no test captures stderr: its log handler keeps the stream that it meets first."""
    import_module("lightning.pytorch")


@pytest.fixture
def lab(lightning_log: None, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.jsonl", pair_rows(14))
    write_rows(tmp_path / "validation.jsonl", pair_rows(6, start=100))
    run = {
        "policy": {"path": str(tiny)},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "batch_size": 4, "max_length": 128},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False},
        "samples": {"prompts": 0},
        "spec": {"optimizer": {"lr": 1e-2}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return Lab(tmp_path, path)


@pytest.fixture
def refused(lightning_log: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused: exit code 2, one message, no traceback. Returns the message."""

    def run(*arguments: str) -> str:
        from nashtune.cli.main import main

        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        assert code == 2, f"exit code {code}, stderr: {captured.err}"
        assert "Traceback" not in captured.err
        message = captured.err[captured.err.rindex("error: ") :]
        return " ".join(message.split())

    return run


@pytest.fixture
def heads(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model with three random heads of some size, so that rewards and their variance differ."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=3)
    model.score.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path / "heads")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "heads")
    return tmp_path / "heads"


@pytest.fixture
def sft_adapter(tiny: Path, tmp_path: Path) -> Path:
    """An adapter on the tiny model that changes what it says."""
    import torch

    from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig

    policy = HFPolicy(PolicyConfig(path=str(tiny), lora=LoraSettings(r=2)))
    policy.load()
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            torch.nn.init.normal_(weight, std=0.2)
    policy.save_pretrained(tmp_path / "sft")
    return tmp_path / "sft"


@pytest.fixture
def load() -> Callable[..., HFPolicy]:
    """A loaded policy."""

    def make(path: Path, **settings: object) -> HFPolicy:
        from nashtune.models.policy import HFPolicy, PolicyConfig

        policy = HFPolicy(PolicyConfig(path=str(path), **settings))  # type: ignore[arg-type]
        policy.load()
        return policy

    return make

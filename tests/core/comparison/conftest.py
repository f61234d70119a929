from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import yaml

from lab import Lab, pair_rows, write_rows
from nashtune.comparison import runner
from nashtune.comparison.rate import rate
from nashtune.errors import InputError
from nashtune.interfaces.stage import Work
from nashtune.pipeline import fit_command

RUN = {
    "data": {"train": "train.jsonl", "validation": "validation.jsonl", "batch_size": 2, "max_length": 128},
    "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False},
    "samples": {"prompts": 0, "max_new_tokens": 6},
    "save_every": 1,
    "spec": {
        "optimizer": {"lr": 1e-2, "warmup": 0},
        "oracle": {"name": "rules", "rules": ["length", "distinct_1"]},
        "sampler": {"completions": 2, "max_new_tokens": 5},
    },
}
"""8 pairs in batches of 2, 5 held-out ones; an oracle and a sampler for those who read them."""
SPECS = ("dpo", "online_dpo")


@pytest.fixture
def pit(lightning_log: None, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A folder with pairs and a run file on which an offline method and a game can both be trained."""
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path, tiny)


def prepare(folder: Path, tiny: Path) -> Lab:
    write_rows(folder / "train.jsonl", pair_rows(8))
    write_rows(folder / "validation.jsonl", pair_rows(5, start=100))
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"policy": {"path": str(tiny)}, **RUN}))
    return Lab(folder, path)


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Specs train in this process: its Lightning is imported already."""
    monkeypatch.setattr(fit_command, "call", call)


def call(arguments: Sequence[str], work: Work) -> None:
    from nashtune.cli.main import main

    if main(list(arguments)):
        raise InputError("the training failed")


@pytest.fixture
def ask(pit: Lab) -> Callable[..., object]:
    """A request from a command line, as `nashtune compare` makes it."""
    from nashtune.cli.compare import _request as request
    from nashtune.cli.compare import add_arguments, take
    from nashtune.cli.main import Parser

    def make(*argv: str) -> object:
        parser = Parser(allow_abbrev=False)
        add_arguments(parser)
        extra, rest = take([*argv, "--config", str(pit.run_file)])
        args = parser.parse_all(rest)
        for name, value in extra.items():
            setattr(args, name, value)
        return request(args)

    return make


COMMAND = (
    *("compare", *SPECS, "--config", "run.yaml", "--run_dir", "out", "--seeds", "2", "--steps", "3"),
    *("--spec.schedule.rounds", "2"),
)


@pytest.fixture(scope="session")
def whole(lightning_log: None, tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A folder in which two specs were compared over two seeds by a command that nobody stopped."""
    from nashtune.cli.main import main

    folder = tmp_path_factory.mktemp("whole")
    prepare(folder, tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(fit_command, "call", call)
        patch.setattr(runner, "rate", partial(rate, resamples=50))
        assert main(list(COMMAND)) == 0
    return folder


@pytest.fixture
def again(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to be spoilt."""
    monkeypatch.setattr(runner, "rate", partial(rate, resamples=50))
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def command() -> list[str]:
    return list(COMMAND)

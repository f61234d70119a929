from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from lab import Lab, pair_rows, write_rows
from nashtune.errors import InputError
from nashtune.interfaces.stage import Work
from nashtune.pipeline import fit_command


class Line(Lab):
    """The laboratory with a run file for pipelines."""

    def run(self, *arguments: str, pipeline: str = "methodology_dpo", folder: str = "out", code: int = 0) -> Path:
        from nashtune.cli.main import main

        command = ["run", pipeline, "--config", str(self.run_file), "--run_dir", str(self.folder / folder)]
        assert main([*command, *arguments]) == code
        return self.folder / folder


@pytest.fixture
def line(lab: Lab) -> Line:
    """24 pairs of two sources, two of them gibberish; a filter with few, short own samples; one epoch of DPO."""
    rows = pair_rows(22)
    for i, row in enumerate(rows):
        row |= {"source": "books" if i % 3 else "web", "id": i}
    rows += [
        {"prompt": f"Say {i}", "chosen": "\x01\x02\x03" * 9, "rejected": "no", "source": "noise", "id": 90 + i}
        for i in range(2)
    ]
    write_rows(lab.folder / "train.jsonl", rows)
    run = yaml.safe_load(lab.run_file.read_text())
    run["trainer"]["max_epochs"] = 1
    run["save_every"] = 2
    run["spec"]["optimizer"]["warmup"] = 0
    run["stages"] = {"filter": {"samples": 2, "max_new_tokens": 8}}
    lab.run_file.write_text(yaml.safe_dump(run))
    return Line(lab.folder, lab.run_file)


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages train in this process: its Lightning is imported already."""
    monkeypatch.setattr(fit_command, "call", _call)


def _call(arguments: Sequence[str], work: Work) -> None:
    from nashtune.cli.main import main

    if main(list(arguments)):
        raise InputError("the training failed")


@pytest.fixture
def imported() -> Callable[..., list[str]]:
    """Which of some modules a command imports, in a fresh interpreter, with its exit code first."""
    import json
    import subprocess

    script = (
        "import contextlib, io, json, sys\n"
        "from nashtune.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    code = main(sys.argv[1:])\n"
        "print(json.dumps([code, *sorted({'torch', 'lightning', 'transformers', 'peft'} & set(sys.modules))]))\n"
    )

    def run(*arguments: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        found: list[str] = json.loads(done.stdout)
        return found

    return run

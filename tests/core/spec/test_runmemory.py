"""What `check` says of the memory of several processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nashtune.cli.main import main
from nashtune.memory.shape import read_shape
from nashtune.models.locate import locate
from nashtune.spec import runranks
from nashtune.spec.runmemory import CUT_UP, gathered_parameters


@pytest.fixture
def check(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "p" * n, "chosen": "c" * 2 * n, "rejected": "r" * n} for n in range(1, 41)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["--policy.path", str(tiny), "--data.train", "rows.jsonl", "--data.template", "plain"]

    def run(*options: str) -> dict[str, Any]:
        assert main(["check", "dpo", "--json", *own, "--trainer.accelerator", "cpu", *options]) == 0
        (result,) = json.loads(capsys.readouterr().out)
        return dict(result)

    return run


@pytest.mark.parametrize("lora", [False, True])
def test_fsdp2_cuts_up_what_stays_and_gathers_two_layers(check: Callable[..., Any], tiny: Path, lora: bool) -> None:
    options = ("--spec.optimizer.name", "adamw", *(("--policy.lora", "{r: 2}") if lora else ()))
    one = check(*options)["memory"]["parts"]
    four = check(*options, "--trainer.strategy", "fsdp2", "--trainer.devices", "4")
    shape = read_shape(locate(str(tiny), "policy.path"))
    assert shape is not None
    gathered = gathered_parameters(shape)
    outside = shape.embedding * (1 if shape.tied else 2)
    assert outside < gathered <= shape.parameters + 1
    for name, part in four["memory"]["parts"].items():
        if name == "gathered":
            assert part == gathered * (4 if lora else 8)  # float32, and its gradient where all weights have one
        elif name in CUT_UP:
            assert part == -(-one[name] // 4), name
        else:
            assert part == one[name], name
    assert sum(four["memory"]["parts"].values()) == four["memory"]["peak"]
    (said,) = [note for note in four["notes"] if "under fsdp2" in note]
    assert "of each of 4 processes" in said and "not measured" in said and "Rank 0 first reads the whole model" in said


def test_ddp_keeps_everything_in_each(check: Callable[..., Any]) -> None:
    one, two = check(), check("--trainer.devices", "2")
    assert two["memory"]["parts"] == one["memory"]["parts"]
    assert "memory: of each process; all of them hold everything" in two["notes"]
    assert not any("of each process" in note for note in one["notes"])


def test_it_says_where_it_does_not_know(check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runranks, "on_accelerator", lambda trainer: True)
    found = check("--trainer.accelerator", "gpu", "--trainer.strategy", "fsdp2")
    assert found["memory"] is None
    assert "memory: not predicted under fsdp2 where trainer.devices does not say how many there are" in found["notes"]
    assert any("devices 1, for trainer.devices does not say how many" in note for note in found["notes"])

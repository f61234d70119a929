"""What a training of a pipeline says of itself, where it was altered."""

from __future__ import annotations

import json

import pytest

from lab import Lab
from nashtune.errors import InputError
from nashtune.interfaces.stage import Work
from nashtune.pipeline.fit_stage import FitStage
from nashtune.spec.run import load_runs

WHOLE = {"spec": "dpo", "steps": 3, "held_out": {"accuracy": 0.5}, "rounds": [{"score": None}, {"score": 1.0}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\xff",
        "[" * 100_000,
        *(json.dumps(WHOLE | {key: "x"}) for key in ("steps", "held_out", "rounds")),
    ],
)
@pytest.mark.parametrize("seeds", [None, 1])
def test_a_damaged_report_is_named(lab: Lab, text: str, seeds: int | None) -> None:
    runs, folder = load_runs([str(lab.run_file)]), lab.folder / "stage"
    run = folder / "run" if seeds is None else folder / "run" / "seed-0"
    (run / "export").mkdir(parents=True)
    stage = FitStage(spec="dpo", seeds=seeds)
    work = Work(folder=folder, say=print, stdout=None, inherit=())
    (run / "report.json").write_text(json.dumps(WHOLE))
    assert "3 steps, held-out accuracy 0.5" in stage.run(runs, work).summary
    (run / "report.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"report\.json: it is not there, was cut short or altered; rest") as refused:
        stage.run(runs, work)
    assert f"delete the folder {run}: the same command with this --run_dir then trains it anew" in str(refused.value)

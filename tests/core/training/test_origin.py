"""Each line of `predict` says which weights, rows and settings it was made by."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Lab, pair_rows, write_rows
from nashtune.cli.main import main
from nashtune.training.checkpoint import newest_checkpoint

Predict = Callable[..., list[dict[str, object]]]


@pytest.fixture
def predict(lab: Lab, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Predict:
    def run(checkpoint: Path, *options: str) -> list[dict[str, object]]:
        capfd.readouterr()
        assert main(["predict", "--ckpt_path", str(checkpoint), *options]) == 0
        lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
        assert f"note: made_by {lines[0]['made_by']}: spec " in caplog.text
        spelt = [text for text in caplog.messages if text.startswith("note: made_by")][-1].splitlines()
        assert f"weights {str(lines[0]['weights']).removeprefix('sha256:')[:8]}," in " ".join(spelt)
        assert len(spelt) > 2 and max(map(len, spelt)) <= 106
        assert len({(one["weights"], one["data"], one["made_by"]) for one in lines}) == 1
        return lines

    return run


def test_lines_name_weights_rows_and_settings(lab: Lab, predict: Predict) -> None:
    first, second = (lab.fit("--trainer.max_steps", steps, run=steps) for steps in ("1", "2"))
    of_run = {run: json.loads((run / "report.json").read_text()) for run in (first, second)}
    checkpoint = newest_checkpoint(first)
    usual = predict(checkpoint)[0]
    assert predict(checkpoint)[0] == usual
    assert usual["weights"] == of_run[first]["weights"] != of_run[second]["weights"]
    fingerprint = of_run[first]["data"]["validation"]["fingerprint"]
    assert usual["data"] == f"sha256:{fingerprint[:16]}"

    further = predict(newest_checkpoint(second))[0]
    assert (further["weights"], further["data"]) == (of_run[second]["weights"], usual["data"])
    write_rows(lab.folder / "other.jsonl", pair_rows(6, start=300))
    other = predict(checkpoint, "--data.test", "other.jsonl")[0]
    assert other["weights"] == usual["weights"] and other["data"] != usual["data"]
    beta = predict(checkpoint, "--spec.kl.beta", "0.3")[0]
    assert (beta["weights"], beta["data"]) == (usual["weights"], usual["data"])
    assert len({one["made_by"] for one in (usual, further, other, beta)}) == 4


def test_a_table_reader_sees_columns_of_text(lab: Lab, predict: Predict) -> None:
    import pyarrow.json

    lines = predict(newest_checkpoint(lab.fit("--trainer.max_steps", "1", spec="reward_bt")))
    table = pyarrow.json.read_json(io.BytesIO("".join(json.dumps(one) + "\n" for one in lines).encode()))
    assert table.num_rows == len(lines) == 6
    assert {str(table.schema.field(name).type) for name in ("weights", "data", "made_by")} == {"string"}

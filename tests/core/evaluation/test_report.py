from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from nashtune.evaluation.curves import draw_curves
from nashtune.evaluation.report import print_report, read_metrics
from nashtune.evaluation.rounds_table import rounds_table


def write_attempt(folder: Path, attempt: int, rows: str) -> None:
    path = folder / "logs" / f"attempt_{attempt}"
    path.mkdir(parents=True)
    (path / "metrics.csv").write_text(rows)


def test_a_resumed_attempt_replaces_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    write_attempt(tmp_path, 0, "epoch,step,train/loss\n0,0,1.0\n0,1,0.9\n0,2,0.8\n0,3,0.7\n")
    write_attempt(tmp_path, 1, "epoch,step,train/loss,val/loss\n0,2,0.85,\n0,3,0.75,\n0,3,,0.6\n")
    metrics = read_metrics(tmp_path)
    assert metrics.series["train/loss"] == [(0, 1.0), (1, 0.9), (2, 0.85), (3, 0.75)]
    assert metrics.last("val/loss") == 0.6
    assert metrics.last("train/beta") is None


def test_an_attempt_that_only_had_to_finish_takes_no_step_away(tmp_path: Path) -> None:
    write_attempt(tmp_path, 0, "step,train/loss,val/loss\n1,1.0,\n2,0.9,\n2,,0.6\n")
    write_attempt(tmp_path, 1, "step,val/loss\n2,0.6\n")
    assert read_metrics(tmp_path).series == {"train/loss": [(1, 1.0), (2, 0.9)], "val/loss": [(2, 0.6)]}


def test_what_cannot_be_read_is_left_out_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_attempt(tmp_path, 0, "step,train/loss\n1,1.0\n2,0.x\n3,0.8\n4,0.123")
    with caplog.at_level("INFO", logger="lightning_utilities"):
        assert read_metrics(tmp_path).series == {"train/loss": [(1, 1.0), (3, 0.8)]}, "half a number is another one"
    assert caplog.text.count("attempt_0/metrics.csv: 2 rows cannot be read, for the file was cut short or") == 1


@pytest.mark.parametrize(
    ("damaged", "left"),
    [
        (b"step,train/loss\n1,\xff.0\n2,0.9\n", {"train/loss": [(2, 0.9)]}),
        (b"step,train/loss\n1,1.0\n2,\x00\n", {"train/loss": [(1, 1.0)]}),
        (b"step,tr\xe4in/loss,val/loss\n1,1.0,0.5\n", {"val/loss": [(1, 0.5)]}),
        (b"step,train/loss\n1,1.0\n2\n", {"train/loss": [(1, 1.0)]}),
        (b'\xff\x00,,,\n"', {}),
        (b"step,train/loss," + b"x" * 200_000 + b"\n1,1.0,2.0\n", {}),
        (b"step,train/loss\n1,1.0\n2," + b"0" * 200_000 + b"\n", {"train/loss": [(1, 1.0)]}),
        (b"step,train/loss\n1,1.0\n-2,1.0\n1" + b"0" * 400 + b",1.0\n", {"train/loss": [(1, 1.0)]}),
        (b"step,tra", {}),
        (b"", {}),
    ],
)
def test_a_bad_byte_does_not_keep_a_run_from_ending(tmp_path: Path, damaged: bytes, left: dict[str, object]) -> None:
    write_attempt(tmp_path, 0, "")
    (tmp_path / "logs" / "attempt_0" / "metrics.csv").write_bytes(damaged)
    assert read_metrics(tmp_path).series == left


def test_a_header_that_cannot_be_read_is_said_also_where_there_are_no_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_attempt(tmp_path, 0, "x" * 200_000 + "\n")
    with caplog.at_level("INFO", logger="lightning_utilities"):
        assert read_metrics(tmp_path).series == {}
    assert "attempt_0/metrics.csv: a column cannot be read" in caplog.text


def test_a_copy_beside_the_attempts_is_none(tmp_path: Path) -> None:
    write_attempt(tmp_path, 0, "step,train/loss\n1,1.0\n")
    for name in ("attempt_0.old", "attempt_", "attempt_x"):
        (tmp_path / "logs" / name).mkdir()
    assert read_metrics(tmp_path).series == {"train/loss": [(1, 1.0)]}


def test_curves_are_drawn_also_where_a_method_has_no_beta(tmp_path: Path) -> None:
    write_attempt(tmp_path, 0, "step,train/loss,train/accuracy\n0,0.69,0.5\n1,0.6,1.0\n")
    draw_curves(read_metrics(tmp_path), tmp_path / "curves.png", title="x")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*partial*"))


def test_the_table_shows_what_was_measured_and_leaves_out_what_was_not(tmp_path: Path) -> None:
    speed = {"tokens_per_second": 100.0, "positions_per_second": 125.0, "padding_share": 0.2}
    speed |= {"peak_memory_gib": 1.5, "training_seconds": 12.0, "lost_seconds": 0.0}
    report = {"spec": "simpo", "steps": 7, "held_out": {"accuracy": 0.75, "margin": 0.5}, "sampled_kl": None}
    report |= {"beta": None, "throughput": speed, "attempts": [{}], "units": {"reward": "β · nats per token"}}
    stream = io.StringIO()
    answers = [{"prompt": "Hi?", "before": "no [bold]markup[/bold]", "after": "yes"}]
    print_report(report, answers, tmp_path, Console(file=stream, width=120))
    text = stream.getvalue()
    assert "0.750" in text and "20.0 %" in text and "1.50 GiB" in text and "100 / 125" in text
    assert "+0.5000 β · nats per token" in text
    assert "KL(" not in text and "β last" not in text and "attempts" not in text
    assert "no [bold]markup[/bold]" in text
    print_report(report | {"beta": 0.125, "beta_when": "last logged"}, [], tmp_path, Console(file=stream, width=120))
    assert "β last logged" in stream.getvalue() and "0.125" in stream.getvalue()


def test_the_time_of_several_attempts_says_what_was_lost(tmp_path: Path) -> None:
    speed = {"tokens_per_second": 100.0, "positions_per_second": 125.0, "padding_share": 0.2}
    speed |= {"peak_memory_gib": 1.5, "training_seconds": 12.0, "lost_seconds": 0.0}
    report = {"spec": "simpo", "steps": 7, "held_out": {}, "sampled_kl": None, "beta": None, "throughput": speed}
    report |= {"units": {"reward": None}}

    def shown(lost: float) -> str:
        stream = io.StringIO()
        speed["lost_seconds"] = lost
        print_report(report | {"attempts": [{}, {}]}, [], tmp_path, Console(file=stream, width=120))
        return stream.getvalue()

    assert "12 s   (2 attempts) " in shown(0.0)
    assert "12 s   (2 attempts; 3 s after the checkpoint that was gone on from) " in shown(3.0)


def a_round(number: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {"round": number, "prompts": 24, "completions": 96, "tokens": 1200, "truncated": 24}
    row |= {"judgements": 144, "pairs": 40, "dropped": {"tie": 5, "identical": 3}, "steps": 10}
    return row | {"loss": 2358.5, "accuracy": 0.625} | changes


def shown(rounds: list[dict[str, object]]) -> list[list[str]]:
    stream = io.StringIO()
    Console(file=stream, width=80).print(rounds_table(rounds))
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in stream.getvalue().splitlines() if "│" in line]


def test_rounds_say_what_was_made_and_what_was_dropped() -> None:
    second = a_round(2, completions=0, tokens=0, truncated=0, dropped={"inconsistent": 7}, loss=None, accuracy=None)
    rows = {row[0]: row[1:] for row in shown([a_round(1, score=0.25), second])}
    assert rows["mean completion tokens"] == ["12.5", "–"]
    assert rows["ended at the token limit"] == ["25%", "–"]
    assert rows["mean oracle score"] == ["+0.25", "–"]
    assert rows["dropped: tie"] == ["5", "0"]
    assert rows["dropped: identical"] == ["3", "0"]
    assert rows["dropped: inconsistent"] == ["0", "7"]
    assert rows["loss"] == ["2358.5", "–"]
    assert rows["preference accuracy"] == ["0.625", "–"]
    assert "mean oracle score" not in {row[0] for row in shown([a_round(1)])}


def test_of_many_rounds_some_are_shown_the_first_and_the_last_among_them() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(rounds_table([a_round(t) for t in range(1, 1001)]))
    header = next(line for line in stream.getvalue().splitlines() if line.startswith("┃ round"))
    assert [cell.strip() for cell in header.split("┃")[2:-1]] == ["1", "201", "401", "600", "800", "1000"]
    assert "6 of 1000 rounds" in stream.getvalue()
    for n in (1, 2, 3, 4, 5, 6):
        assert all(len(row) == n + 1 for row in shown([a_round(t) for t in range(n)]))


def test_reinforcement_learning_shows_rewards_of_ten_and_of_a_thousand_rounds() -> None:
    row: dict[str, object] = {
        "prompts": 16,
        "completions": 64,
        "tokens": 6144,
        "truncated": 16,
        "pairs": 64,
        "rewards": 64,
        "steps": 4,
    }
    row |= {"score": -12.345, "score_std": 0.987, "variance": None, "kl_k1": -0.00123, "kl_k3": 123.4, "beta": 0.1}
    row |= {"loss": -0.00123, "accuracy": None, "dropped": {}}
    for count in (10, 1000):
        rounds = [{**row, "round": t} for t in range(1, count + 1)]
        stream = io.StringIO()
        Console(file=stream, width=80).print(rounds_table(rounds))
        lines = [line for line in stream.getvalue().splitlines() if "│" in line]
        found = {cells[0]: cells[1:] for cells in ([c.strip() for c in line.split("│")[1:-1]] for line in lines)}
        assert len(found) == len(lines) and "" not in found, "no cell takes two lines"
        assert found["mean reward"] == ["-12.3"] * 6 and found["finished"] == ["75%"] * 6
        assert found["KL to ref, k1"] == ["-0.0012"] * 6 and found["KL to ref, k3"] == ["123"] * 6
        assert "mean variance" not in found and "judgements" not in found

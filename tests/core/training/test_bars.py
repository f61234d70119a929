"""The bars of games, on a real trainer whose loader runs phases between two batches, as games do."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from nashtune.rounds.progress import NoProgress, Progress
from nashtune.training.bars import PlainBar, PlainProgress, RichBar, RoundsBar
from nashtune.training.game_bar import GameBar

STEPS, ACCUMULATE, ROUNDS = 3, 2, 2


class Line(LightningModule):
    """A model whose loss at optimiser step n (from 1) is n; logged as games log it, after the step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight * 0.0

    def on_train_batch_end(self, *args: Any) -> None:
        self.log("train/loss", float(self.trainer.global_step), prog_bar=True, logger=False, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Game:
    """Phases, then the micro-batches of an update, twice; `see` is called before each batch."""

    def __init__(self, progress: Progress, see: Callable[[], None] = lambda: None) -> None:
        self.progress = progress
        self.see = see

    def __len__(self) -> int:
        return ROUNDS * STEPS * ACCUMULATE

    def __iter__(self) -> Iterator[Tensor]:
        for t in range(1, ROUNDS + 1):
            self.progress.round(t, ROUNDS)
            self.progress.phase("collect", 4, "completions")
            self.progress.advance(3)
            self.see()
            self.progress.advance()
            self.progress.done("4 completions, 20 tokens")
            self.progress.phase("judge [a/b]")
            self.progress.done("6 comparisons")
            self.progress.phase("update main", STEPS, "steps")
            for _ in range(STEPS * ACCUMULATE):
                self.see()
                yield torch.zeros(1)


def trainer_of(bar: Callback, path: Path, accumulate: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        callbacks=[bar],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=path,
    )


def play(bar: GameBar, path: Path, see: Callable[[], None] = lambda: None) -> Trainer:
    trainer = trainer_of(bar, path, ACCUMULATE)
    trainer.fit(Line(), Game(bar, see))
    assert trainer.progress_bar_callback is bar
    return trainer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that bars see; a test changes the one element."""
    now = [0.0]
    monkeypatch.setattr("nashtune.training.bars.monotonic", lambda: now[0])
    monkeypatch.setattr("nashtune.training.game_bar.monotonic", lambda: now[0])
    return now


def test_a_terminal_shows_rounds_phases_and_steps_in_one_display(
    lightning_log: None, tmp_path: Path, clock: list[float]
) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=110, color_system=None)
    bar = RoundsBar(console)
    seen: list[tuple[Any, ...]] = []

    def see() -> None:
        display = bar._display
        assert display is not None and len(console._live_stack) == 1
        rounds, phase = display.tasks
        seen.append((rounds.description.strip(), rounds.completed, phase.description, phase.fields["count"]))
        seen[-1] += (phase.fields["metrics"],)

    play(bar, tmp_path, see)
    assert [row[2:] for row in seen if row[:2] == ("round 2/2", 1)] == [
        ("collect", "3/4 completions", ""),
        ("update main", "0/3 steps", ""),
        ("update main", "0/3 steps", ""),
        ("update main", "1/3 steps", ""),  # metrics come when the next batch starts
        ("update main", "1/3 steps", "loss 4"),
        ("update main", "2/3 steps", "loss 4"),
        ("update main", "2/3 steps", "loss 5"),
    ]
    text = stream.getvalue()
    for line in (
        "round 1/2  collect: 4 completions, 20 tokens",
        "round 1/2  judge [a/b]: 6 comparisons",
        "round 1/2  update main: 3 steps, 0.0 s  loss 3",
        "round 2/2  update main: 3 steps, 0.0 s  loss 6",
    ):
        assert text.count(line) == 1, line
    assert not console._live_stack and bar._display is None


def test_logs_get_a_line_at_the_beginning_and_the_end_of_each_phase(
    lightning_log: None, tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    play(PlainProgress(), tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round")]
    assert lines[:6] == [
        "round 1/2  collect 0/4 completions ...",
        "round 1/2  collect: 4 completions, 20 tokens",
        "round 1/2  judge [a/b] ...",
        "round 1/2  judge [a/b]: 6 comparisons",
        "round 1/2  update main 0/3 steps ...",
        "round 1/2  update main: 3 steps, 0.0 s  loss 3",
    ]
    assert lines[-1] == "round 2/2  update main: 3 steps, 0.0 s  loss 6" and len(lines) == 12


def test_a_long_phase_says_where_it_is_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = PlainProgress()
    progress.phase("collect", 100, "completions")
    for second in range(1, 26):
        clock[0] = float(second)
        progress.advance(4)
    progress.done("100 completions")
    assert capsys.readouterr().out.splitlines() == [
        "collect 0/100 completions ...",
        "collect 40/100 completions, 10 s",
        "collect 80/100 completions, 20 s",
        "collect: 100 completions",
    ]


def test_thousands_of_short_rounds_do_not_make_thousands_of_lines(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = PlainProgress()
    for number in range(1, 1001):
        clock[0] += 1
        progress.round(number, 1000)
        progress.phase("collect", 4)
        progress.done("4")
    progress.round(0, 1000)
    progress.phase("win rates")
    progress.done("done")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 100 + 2 and lines[-2:] == ["win rates ...", "win rates: done"]


@pytest.mark.parametrize("kind", [RoundsBar, PlainProgress])
def test_other_ranks_are_silent(kind: type[GameBar], capsys: pytest.CaptureFixture[str]) -> None:
    bar = kind()
    bar.disable()
    bar.round(1, 2)
    bar.phase("collect", 4)
    bar.advance(4)
    bar.done("4")
    bar.close()
    assert capsys.readouterr().out == ""


def test_an_exception_leaves_the_terminal_as_it_was(lightning_log: None, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    bar = RoundsBar(console)

    def fail() -> None:
        raise RuntimeError("the judge is down")

    with pytest.raises(RuntimeError, match="the judge is down"):
        play(bar, tmp_path, fail)
    assert not console._live_stack and bar._display is None
    assert "collect:" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_phases_may_follow_the_training(lightning_log: None, tmp_path: Path, clock: list[float]) -> None:
    stream = io.StringIO()
    bar = RoundsBar(Console(file=stream, force_terminal=True, width=110, color_system=None))
    play(bar, tmp_path)
    bar.round(0, 2)
    bar.phase("win rates", 6, "comparisons")
    bar.advance(6)
    bar.close()
    assert "\nwin rates: 6 comparisons, 0.0 s" in stream.getvalue().replace("\r", "\n").replace("\x1b[2K", "")
    assert bar._display is None


def test_a_resumed_update_counts_the_steps_of_before(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    progress.phase("update aux", 8, "steps")
    progress.advance(3)
    clock[0] = 10.0
    progress.advance(2)
    assert "update aux 5/8 steps, 10 s" in capsys.readouterr().out


def test_no_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = NoProgress()
    progress.round(1, 1)
    progress.phase("collect", 4, "completions")
    progress.advance()
    progress.done("4 completions")
    progress.close()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", [PlainBar, RichBar])
def test_the_version_of_a_logger_is_not_shown(
    kind: type[Any], lightning_log: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = kind.__mro__[2]
    monkeypatch.setattr(base, "get_metrics", lambda *args: {"v_num": 3, "train/loss": 0.5})
    assert kind().get_metrics(None, None) == {"train/loss": 0.5}


def test_the_bars_of_other_runs_say_what_they_count(
    lightning_log: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    rich = RichBar(leave=True, console_kwargs={"file": stream, "force_terminal": True, "width": 110})
    for bar in (PlainBar(), rich):
        trainer_of(bar, tmp_path).fit(Line(), range(4))
    assert "4/4 batches [" in capsys.readouterr().out
    assert "4/4 batches" in stream.getvalue()


def test_a_bar_in_a_log_shows_every_slow_step_and_few_fast_ones(
    lightning_log: None, tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(seconds: float) -> list[int]:
        class Slow(Line):
            def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
                clock[0] += seconds
                return super().training_step(batch, batch_idx)

        trainer_of(PlainBar(), tmp_path).fit(Slow(), range(12))
        return sorted({int(n) for n in re.findall(r"(\d+)/12 batches", capsys.readouterr().out)} - {0})

    assert shown(5.0) == list(range(1, 13))
    assert shown(0.5) == [1, 5, 9, 12]

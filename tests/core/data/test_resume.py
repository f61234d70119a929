"""A run that is stopped and resumed sees the same rows, step by step, as one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from nashtune.data.module import PreferenceData
from nashtune.errors import InputError

ROWS = 11  # with a batch of 2: six micro-batches an epoch, the last of one row
Seen = list[tuple[int, int, int, list[int]]]


class Toy(LightningModule):
    """One linear layer that remembers which rows it saw in which optimiser step, and how large the step was."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: Seen = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        trainer: Any = self.trainer
        window = trainer.datamodule.window_size(batch_idx, trainer.accumulate_grad_batches)
        self.seen.append((trainer.global_step, batch_idx, window, batch.rows.tolist()))
        return self.layer(batch.rows[:, None].float()).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.layer(batch.rows[:, None].float())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class SaveAt(Callback):
    """Saves a checkpoint in one hook, once, when so many batches were processed."""

    def __init__(self, hook: str, batches: int, path: Path) -> None:
        self.path = path
        self.batches = batches
        setattr(self, hook, self._save)

    def _save(self, trainer: Trainer, *args: Any) -> None:
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        if progress.total.processed == self.batches and not self.path.exists():
            trainer.save_checkpoint(self.path)


class StopIn(Callback):
    """Dies in a hook, as an out-of-memory error or a full disk would."""

    def __init__(self, hook: str, batch: int) -> None:
        self.batch = batch
        setattr(self, hook, self._stop)

    def _stop(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise MemoryError("stopped")


class SaveOnException(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.path)


def fit(source: str, tokenizer: Any, ckpt: Path | None = None, *, toy: Toy | None = None, **options: Any) -> Seen:
    own = {"batch_size": 2, **{name: options.pop(name) for name in ("batch_size", "validation") if name in options}}
    data = PreferenceData(source, **own)
    data.bind(tokenizer=tokenizer, rows="pairs", uses_p_chosen=True, seed=options.pop("seed", 0))
    toy = toy or Toy()
    callbacks = options.get("callbacks", [])
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        **{"max_epochs": 3, **options},
    )
    trainer.fit(toy, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return toy.seen


@pytest.mark.parametrize("batches", [1, 4, 6, 8, 12])
@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 17}])
def test_saved_after_a_batch(pairs, tokenizer, tmp_path, batches, limits) -> None:
    """Within an epoch (1, 4, 8) and after its last batch (6, 12)."""
    path = tmp_path / "a.ckpt"
    whole = fit(pairs(ROWS), tokenizer, callbacks=[SaveAt("on_train_batch_end", batches, path)], **limits)
    assert len(whole) == limits.get("max_steps", 18)
    assert fit(pairs(ROWS), tokenizer, path, **limits) == whole[batches:]


@pytest.mark.parametrize("hook", ["on_validation_end", "on_train_epoch_end"])
@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 17}])
def test_saved_when_an_epoch_ends(pairs, tokenizer, tmp_path, hook, limits) -> None:
    path, options = tmp_path / "a.ckpt", {"validation": pairs(ROWS), **limits}
    whole = fit(pairs(ROWS), tokenizer, callbacks=[SaveAt(hook, 6, path)], **options)
    assert fit(pairs(ROWS), tokenizer, path, **options) == whole[6:]


def test_saved_at_a_validation_within_an_epoch(pairs, tokenizer, tmp_path) -> None:
    path, options = tmp_path / "a.ckpt", {"validation": pairs(ROWS), "val_check_interval": 2}
    whole = fit(pairs(ROWS), tokenizer, callbacks=[SaveAt("on_validation_end", 8, path)], **options)
    assert fit(pairs(ROWS), tokenizer, path, **options) == whole[8:]


@pytest.mark.parametrize("batches", [3, 4, 8])
def test_an_epoch_that_the_trainer_cuts_short(pairs, tokenizer, tmp_path, batches) -> None:
    path, options = tmp_path / "a.ckpt", {"limit_train_batches": 4}
    whole = fit(pairs(ROWS), tokenizer, callbacks=[SaveAt("on_train_batch_end", batches, path)], **options)
    assert len(whole) == 12
    assert fit(pairs(ROWS), tokenizer, path, **options) == whole[batches:]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the resumed run saves nothing
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_gradient_accumulation(pairs, tokenizer, tmp_path, step) -> None:
    """ModelCheckpoint saves when the step is made: four micro-batches, or the two that are left."""
    saving = ModelCheckpoint(dirpath=tmp_path / "saved", filename="{step}", every_n_train_steps=step, save_top_k=-1)
    options = {"accumulate_grad_batches": 4}
    whole = fit(pairs(ROWS), tokenizer, callbacks=[saving], **options)
    assert [(row[0], row[2]) for row in whole[:6]] == [(0, 8)] * 4 + [(1, 3)] * 2
    rest = fit(pairs(ROWS), tokenizer, tmp_path / "saved" / f"step={step}.ckpt", **options)
    assert rest == [row for row in whole if row[0] >= step]


def test_resuming_again_and_again(pairs, tokenizer, tmp_path) -> None:
    """Killed after every five batches, five times, over three epochs."""
    whole = fit(pairs(ROWS), tokenizer)
    seen: Seen = []
    ckpt = None
    for attempt in range(4):
        path = tmp_path / f"{attempt}.ckpt"
        saving = SaveAt("on_train_batch_end", 5 * (attempt + 1), path)
        seen += fit(pairs(ROWS), tokenizer, ckpt, callbacks=[saving])[:5]
        ckpt = path
    assert seen == whole


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_after_backward", "on_train_batch_end"])
@pytest.mark.parametrize("batch", [0, 2, 5, 7])
def test_saved_while_dying(pairs, tokenizer, tmp_path, hook, batch) -> None:
    """A batch counts once it was processed: dying before that reads it again, dying after does not."""
    path = tmp_path / "a.ckpt"
    whole = fit(pairs(ROWS), tokenizer)
    with pytest.raises(MemoryError):
        fit(pairs(ROWS), tokenizer, callbacks=[StopIn(hook, batch), SaveOnException(path)])
    done = batch + (hook == "on_train_batch_end")
    assert [row[3] for row in fit(pairs(ROWS), tokenizer, path)] == [row[3] for row in whole[done:]]


def test_more_epochs_for_a_finished_run(pairs, tokenizer, tmp_path) -> None:
    path = tmp_path / "a.ckpt"
    whole = fit(pairs(ROWS), tokenizer, max_epochs=3)
    fit(pairs(ROWS), tokenizer, max_epochs=2, callbacks=[SaveAt("on_train_end", 12, path)])
    assert fit(pairs(ROWS), tokenizer, path, max_epochs=3) == whole[12:]


def test_a_checkpoint_within_an_optimiser_step_is_refused(pairs, tokenizer, tmp_path) -> None:
    """Its first micro-batches' gradients are gone: going on would make a step of half its pairs, silently."""
    path = tmp_path / "a.ckpt"
    options = {"accumulate_grad_batches": 2}
    fit(pairs(ROWS), tokenizer, callbacks=[SaveAt("on_train_batch_end", 3, path)], **options)
    with pytest.raises(InputError, match="saved between two micro-batches of one optimiser step"):
        fit(pairs(ROWS), tokenizer, path, **options)


@pytest.mark.parametrize("batches", [4, 6])
@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        (ROWS, {"seed": 1}, "seed_everything: the checkpoint was made with seed 0"),
        (ROWS, {"batch_size": 3}, r"accumulate_grad_batches: the checkpoint was made with 2 rows per optimiser step"),
        (ROWS + 1, {}, r"data\.train: the checkpoint was made with 11 rows, these are 12"),
    ],
)
def test_other_data_are_refused(pairs, tokenizer, tmp_path, rows, change, message, batches) -> None:
    """Also at an epoch's end, where Lightning does not hand the loader its state."""
    path = tmp_path / "a.ckpt"
    fit(
        pairs(ROWS),
        tokenizer,
        callbacks=[SaveAt("on_train_epoch_end" if batches == 6 else "on_train_batch_end", batches, path)],
    )
    toy = Toy()
    with pytest.raises(InputError, match=message):
        fit(pairs(rows), tokenizer, path, toy=toy, **change)
    assert toy.seen == []

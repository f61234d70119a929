"""What Lightning says that a user cannot act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

HARMLESS = (
    r"`is_gradient_checkpointing` is deprecated",  # peft 0.21 reads an attribute that transformers 5 renamed
    r".*isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own _pytree.py under torch 2.13
    r"Checkpoint directory .* exists and is not empty",  # a resume; another run in the folder was refused before
    r"Be aware that when using `ckpt_path`, callbacks used to create",  # an evaluation saves nothing, so it lacks them
    r"You have overridden `\w*batch\w*` in `LightningModule`",  # as meant: its engine counts batches
    r"The 'train_dataloader' does not have many workers",  # rows are in memory, there is nothing for a worker to do
    r"The 'val_dataloader' does not have many workers",
    r"It is recommended to use `self.log\(.*sync_dist=True",  # what is logged was reduced over the ranks before
)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the messages above and Lightning's advertisements; everything else is said."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(_no_advertisement)
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            logger.removeFilter(_no_advertisement)


def _no_advertisement(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    unwanted = ("litlogger", "litmodels", "`weights_only` was not set", "stopped: `max_epochs=")
    return not any(part in text for part in unwanted)

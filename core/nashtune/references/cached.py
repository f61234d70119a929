"""Reference `cached`: log-prob sums of the starting weights, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers

from nashtune.cache import cache_root
from nashtune.errors import InputError
from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.interfaces.reference import Reference
from nashtune.logprobs.head import accumulation_dtype
from nashtune.models.policy import HFPolicy
from nashtune.references.live import freeze, hf_policy
from nashtune.references.scoring import look_up, score_new
from nashtune.references.store import Entry, file_digest, key_of, read, write
from nashtune.terminal import rank, with_bar


class CachedReference(Reference):
    """The policy at its starting weights, as `base`, but every sequence is scored once, before the first step.

    It saves one forward pass in every step and needs no second model while training. The numbers are found by the token
    ids and completion mask of a sequence, so train and validation rows cannot collide. A file is named after everything
    the numbers depend on: weights, config, adapter, dtype, autocast, attention, engine, data, versions.

    Args:
        folder: Where the files are kept; None takes `reference` in the product's cache folder.
    """

    gives_logits: ClassVar[bool] = False

    def __init__(self, *, folder: str | None = None) -> None:
        self.folder = Path(folder).expanduser() if folder else cache_root() / "reference"
        self._policy: HFPolicy | None = None
        self._start: list[float] = []
        self._entries: dict[bytes, Entry] = {}
        self._dtype = torch.float32

    def attach(self, policy: Policy) -> None:
        """Remembers the policy and a checksum of its starting weights."""
        self._policy = hf_policy(policy, "cached")
        self._start = _checksum(self._policy)
        self._entries = {}

    def prepare(self, batches: Iterable[TokenBatch], engine: LogProbEngine, key: str) -> Path:
        """Reads the log-probs of these batches from disk, or computes and keeps them.

        Call it before the first step, once for each split.

        Under data parallelism every rank calls it with the same batches (all rows, not its share): each scores its
        part.

        Args:
            batches: Every sequence of the split, in any order; batches of any size.
            engine: The run's engine.
            key: Fingerprint of the split's tokens.

        Returns:
            The cache file.

        Raises:
            InputError: the file is broken or cannot be written, or the data is unpaired.
        """
        policy = self._attached()
        self._dtype = accumulation_dtype(next(policy.parameters()).dtype)
        parts = _parts(policy, engine, key)
        file = self.folder / f"{key_of(parts)}.safetensors"
        # every rank must take the same way: rank 0 looks
        if _everyone(file.is_file())[0]:
            self._entries.update(read(file, parts))
            return file
        entries: dict[bytes, Entry] = {}
        for part in _everyone(self._score(batches, engine)):
            entries.update(part)
        if rank() == 0:
            write(file, entries, parts, self._dtype)
        self._entries.update(entries)
        return file

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """The kept sums; `token_logp` is empty, because only sums are kept.

        Raises:
            InputError: a sequence was not scored, or its length is another: the data changed since.
        """
        return look_up(
            self._entries,
            batch,
            self._dtype,
            "references: no cached log-prob for row {row}: it was not among the rows scored before training; use the "
            "reference `base`",
        )

    def _score(self, batches: Iterable[TokenBatch], engine: LogProbEngine) -> dict[bytes, Entry]:
        """This rank's share of the sequences, under the starting weights."""
        policy = self._attached()
        model, adapter_off = self._starting_model(policy)
        entries: dict[bytes, Entry] = {}
        for batch in _share(with_bar(batches, "reference log-probs")):
            if batch.kind != "pairs":
                raise InputError(
                    "references: cached, but unpaired data forms other sequences in every epoch (each prompt meets "
                    "another example's completion); use the reference `base`"
                )
            with model.disable_adapter() if adapter_off else nullcontext():
                score_new(entries, model, batch, engine, policy.device)
        return entries

    def _starting_model(self, policy: HFPolicy) -> tuple[Any, bool]:
        """The starting weights, and whether they are the policy's with its adapter off.

        In a resumed run whose cache file is gone the policy may hold restored weights already: then they are read anew.
        """
        if policy.adapter == "fresh":
            return policy.loaded(), True
        if _checksum(policy) == self._start:
            return policy.loaded(), False
        model = freeze(policy.starting_model().model)
        return model.to(policy.device), False

    def _attached(self) -> HFPolicy:
        if self._policy is None:
            raise RuntimeError("CachedReference is not attached to a policy")
        return self._policy


def _parts(policy: HFPolicy, engine: LogProbEngine, key: str) -> dict[str, str]:
    """Everything the numbers depend on. A cache that is found by less hands one model's numbers to another."""
    device = policy.device.type
    return {
        "model": file_digest(policy.folder.weight_files() + policy.folder.config_files()),
        "adapter": policy.adapter,
        "dtype": str(next(policy.parameters()).dtype),
        "autocast": str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else "off",
        "attention": policy.config.attention,
        "engine": type(engine).__name__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "data": key,
    }


def _checksum(policy: HFPolicy) -> list[float]:
    """Two moments of every trained weight: equal only as long as nothing was trained or restored."""
    return [
        number
        for weight in policy.trainable_state_dict().values()
        for number in (weight.double().sum().item(), weight.double().square().sum().item())
    ]


def _share(batches: Iterable[TokenBatch]) -> Iterator[TokenBatch]:
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return (batch for i, batch in enumerate(batches) if i % world == rank())


def _everyone(value: Any) -> list[Any]:
    """The value of every rank."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values

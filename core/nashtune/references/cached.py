"""Reference `cached`: log-prob sums of the starting weights, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from nashtune.cache import cache_root
from nashtune.errors import InputError
from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.interfaces.reference import Batches, Reference
from nashtune.logprobs.head import accumulation_dtype
from nashtune.models.policy import HFPolicy
from nashtune.notes import note
from nashtune.ranks import everyone, rank, together, world
from nashtune.references.cache_files import PartFiles, key_of, read, write
from nashtune.references.cache_key import everything
from nashtune.references.live import freeze, hf_policy
from nashtune.references.scoring import Window, look_up, score_new, windows
from nashtune.references.store import Sums, no_sums
from nashtune.references.verification import ALLOWED, advice, difference, precision, sample
from nashtune.sharding.tensors import local

DOING = "reference log-probs"

SAMPLED = 4096
"""Numbers of a weight that tell whether it is still as it was."""


class CachedReference(Reference):
    """The policy at its starting weights, as `base`, but every sequence is scored once, before the first step.

    It saves one forward pass in every step and needs no second model while training. The numbers are found by the token
    ids and completion mask of a sequence, so train and validation rows cannot collide. A file is named after everything
    the numbers depend on (`cache_key.everything`), is shared by all runs for which that is the same, and is believed
    only after a few sequences were scored again. A run that is killed while it scores goes on where it was.

    Args:
        folder: Where the files are kept; None takes `reference` in the product's cache folder.
    """

    gives_logits: ClassVar[bool] = False

    def __init__(self, *, folder: str | None = None) -> None:
        self.folder = Path(folder).expanduser() if folder else cache_root() / "reference"
        self._policy: HFPolicy | None = None
        self._start = ""
        self._tables: list[Sums] = []
        self._dtype = torch.float32

    def attach(self, policy: Policy) -> None:
        """Remembers the policy and which state its weights are in."""
        self._policy = hf_policy(policy, "cached")
        self._start = _state(self._policy)
        self._tables = []

    def prepare(self, batches: Batches, engine: LogProbEngine, key: str) -> Path:
        """Finds the log-probs of these batches on disk, or computes and keeps them.

        Call it before the first step, once for each split.

        Under data parallelism every rank calls it with the same batches (all rows, not its share): each scores its
        part.

        Args:
            batches: Every sequence of the split, in any order; batches of any size. Gone through more than once.
            engine: The run's engine.
            key: Fingerprint of the split's tokens.

        Returns:
            The cache file.

        Raises:
            InputError: the file is broken, cannot be written or holds other numbers than the weights give, or the data
                is unpaired.
        """
        policy = self._attached()
        self._dtype = accumulation_dtype(next(policy.parameters()).dtype)
        # rank 0 names the file: the others need not read the weights
        parts = everyone(everything(policy, engine, key) if rank() == 0 else {})[0]
        file = self.folder / f"{key_of(parts)}.safetensors"
        if all(everyone(file.is_file())):  # every rank must take the same way
            with together(DOING):
                sums = read(file, parts)
            self._verify(sums, file, batches, engine)
            note(f"{len(sums)} reference log-probs are read from {file}")
        else:
            kept = PartFiles(file, parts)
            sums = no_sums(self._dtype)
            for part in everyone(self._score(batches, engine, kept)):
                sums = sums.merged(part)
            with together(DOING):
                if rank() == 0:
                    write(file, sums, parts)
                    kept.remove()
            note(f"{len(sums)} reference log-probs are computed and kept in {file}")
        self._tables.append(sums)
        return file

    def recall(self, batch: TokenBatch) -> Tensor:
        """The kept sums of a batch on the host (N,).

        Raises:
            InputError: a sequence was not scored, or its length is another: the data changed since.
        """
        return look_up(
            self._tables,
            batch,
            self._dtype,
            "references: no cached log-prob for row {row}: it was not among the rows scored before training; use the "
            "reference `base`",
        )

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """As `recall`, where the batch is; `token_logp` is empty, because only sums are kept."""
        sums = self.recall(batch).to(batch.input_ids.device)
        return LogProbs(sums=sums, lengths=batch.completion_mask.sum(1), token_logp=sums.new_empty(0))

    def _score(self, batches: Batches, engine: LogProbEngine, kept: PartFiles) -> Sums:
        """This rank's share of the sequences, and what was kept of them before, under the starting weights."""
        policy = self._attached()
        with together(DOING):
            known = kept.read(self._dtype)
        if len(known):
            note(f"{len(known)} reference log-probs are there already, of a run that was stopped")
        if any(everyone(len(known) > 0)):
            self._verify(known, kept.pattern, batches, engine)
        model, adapter_off = self._starting_model(policy)
        done, new = 0, known
        with model.disable_adapter() if adapter_off else nullcontext():
            for number, window in enumerate(self._in_step(windows(_share(batches)))):
                title = DOING + (f", after {done} sequences" if done else "")
                with together(DOING):
                    if number and len(new):  # the last window's sums go into the whole file
                        kept.keep(new)
                    new = score_new(known, window, model, engine, policy.device, title)
                    known = known.merged(new)
                done += len(window)
        return known

    def _verify(self, sums: Sums, file: Path, batches: Batches, engine: LogProbEngine) -> None:
        """Scores a few sequences again; an InputError where the kept numbers are others."""
        policy = self._attached()
        if policy.adapter != "fresh" and not self._starts(policy):
            note(f"{file.name} is not checked against the model: the weights of a checkpoint are in memory")
            return
        allowed = ALLOWED[precision(next(policy.parameters()).dtype, policy.device)]
        model = policy.loaded()
        with model.disable_adapter() if policy.adapter == "fresh" else nullcontext():
            with together(DOING):
                found = difference(sums, sample(batches, sums), model, engine, policy.device, allowed)
        for problem in everyone(found):  # or one rank would stop and the others wait for it
            if problem:
                raise InputError(f"reference cache: {file}: {problem}; {advice(file)}")

    def _starting_model(self, policy: HFPolicy) -> tuple[Any, bool]:
        """The starting weights, and whether they are the policy's with its adapter off.

        In a resumed run whose cache file is gone the policy may hold restored weights already: then they are read anew.
        """
        if policy.adapter == "fresh":
            return policy.loaded(), True
        if self._starts(policy):
            return policy.loaded(), False
        model = freeze(policy.starting_model(empty=policy.empty).model)
        if policy.sharding is not None:
            return policy.sharding.place(model), False
        return model.to(policy.device), False

    def _starts(self, policy: HFPolicy) -> bool:
        """Whether the policy still has its starting weights, on every rank; each looks at what it holds."""
        return all(everyone(_state(policy) == self._start))

    def _in_step(self, windows: Iterator[Window]) -> Iterator[Window]:
        """As many windows for each rank, empty ones at the end: ranks wait for each other, so a failure stops all."""
        while True:
            with together(DOING):
                window = next(windows, None)
            if not any(everyone(window is not None)):
                return
            yield window or {}

    def _attached(self) -> HFPolicy:
        if self._policy is None:
            raise RuntimeError("CachedReference is not attached to a policy")
        return self._policy


def _state(policy: HFPolicy) -> str:
    """A hash over some numbers of every trained weight: the same only as long as nothing was trained or restored.

    A step of an optimiser changes nearly all of them, so some of each say as much as all. Exact, because the hash is of
    bits: sums would come out in another way on another device.
    """
    total = hashlib.sha256()
    for weight in policy.trained().values():
        flat = local(weight).flatten()
        some = flat[:: max(1, flat.numel() // SAMPLED)].cpu().contiguous()
        total.update(some.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _share(batches: Iterable[TokenBatch]) -> Iterator[TokenBatch]:
    for i, batch in enumerate(batches):
        if batch.kind != "pairs":  # looked at on every rank, so that all of them stop
            raise InputError(
                "references: cached, but unpaired data forms other sequences in every epoch (each prompt meets "
                "another example's completion); use the reference `base`"
            )
        if i % world() == rank():
            yield batch

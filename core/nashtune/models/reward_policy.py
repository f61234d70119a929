"""What a reward spec trains: a language model's trunk with a score head instead of its LM head.

Legend: N = sequences, K = members.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nashtune.data.budget import budget_batches
from nashtune.data.collate import completion_batch
from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.policy import LogProbEngine
from nashtune.logprobs.head import base_model
from nashtune.logprobs.tiled import TiledEngine
from nashtune.models.config import PolicyConfig
from nashtune.models.export import save_model
from nashtune.models.loading import Loaded, Task
from nashtune.models.mode import frozen_mode
from nashtune.models.normaliser import Normaliser
from nashtune.models.policy import HFPolicy
from nashtune.models.reward_export import finish_export
from nashtune.models.reward_folder import RewardFile, check_trunk
from nashtune.models.reward_head import NAME, scores
from nashtune.models.reward_loading import load_reward_model
from nashtune.references.store import digests
from nashtune.spec.model import HeadSpec
from nashtune.terminal import with_bar

PADDED = TiledEngine()
REMEMBERED_TOKENS = 8192
"""Tokens of a pass of a frozen trunk, padding included."""


class RewardPolicy(HFPolicy):
    """A reward model, or K of them as heads on one trunk. Nothing is read before `load`.

    It starts from a causal LM (a new head), from a reward model's folder (its head goes on), or from an adapter for
    either. With LoRA the head is trained and saved with the adapter.

    Args:
        config: What the run file says.
        head: What the spec says.

    Attributes:
        normaliser: What is stored beside the weights; see `normaliser.normalise`.
        template: How prompt and answer become one text, for the folder's consumers.
        max_length: Tokens that a text may have, for the folder's consumers.
    """

    task: ClassVar[Task] = "SEQ_CLS"

    def __init__(self, config: PolicyConfig, head: HeadSpec) -> None:
        super().__init__(config)
        self.head = head
        self.normaliser = Normaliser.identity(head.members)
        self.template = "chat"
        self.max_length: int | None = None
        self._remembered: dict[bytes, Tensor] = {}

    @property
    def members(self) -> int:
        """Outputs of the head, K."""
        return int(self.head.members)

    def load(self) -> None:
        """Reads the weights, makes or reads the head, adds the adapter; with a frozen trunk the head alone is trained.

        Raises:
            InputError: the folder, its head, the adapter or the LoRA settings are wrong.
        """
        if self.model is not None:
            return
        check_trunk(self.folder, self.config.lora, self.head)
        super().load()
        if self.head.trunk == "frozen":
            for name, weight in self.loaded().named_parameters():
                weight.requires_grad_(name.startswith(f"{NAME}."))

    def starting_model(self, *, empty: bool = False) -> Loaded:
        """The weights that training starts from, without the fresh adapter; see `HFPolicy.starting_model`."""
        return load_reward_model(
            self.folder,
            self.head,
            precision=self.config.precision,
            attention=self.config.attention,
            merge=self.config.lora is not None,
            seed=torch.initial_seed(),
            empty=empty,
        )

    def scores(self, batch: TokenBatch, engine: LogProbEngine = PADDED) -> Tensor:
        """Scores of every sequence by every member (N, K), float32, with gradient; not normalised.

        One pass of the trunk for all members, which read its hidden state at the last attended token.
        """
        known = batch.trunk if batch.trunk is not None else self.recall(batch)
        return scores(self.model, known.to(self.device) if known is not None else self._last_hidden(batch, engine))

    def recall(self, batch: TokenBatch) -> Tensor | None:
        """What `remember` kept of every sequence of a batch (N, H), on the host; None where it did not see them all."""
        if not self._remembered:
            return None
        found = [self._remembered.get(name) for name in digests(batch)]
        known = [one for one in found if one is not None]
        return torch.stack(known) if len(known) == len(found) else None

    def remember(self, batches: Iterable[TokenBatch]) -> None:
        """With a frozen trunk: run every different sequence through it once; `scores` finds its hidden state again.

        Sequences meet others of similar length, in batches that depend on all of them alone, so that a run that is
        taken up again finds the same numbers to the last bit.

        Args:
            batches: Every row of a split. Kept are 4 bytes times the hidden size for each different sequence.
        """
        new: dict[bytes, Sequence[int]] = {}
        for batch in batches:
            real = batch.attention_mask.bool()
            rows = [ids[mask].tolist() for ids, mask in zip(batch.input_ids, real, strict=True)]
            new |= {name: ids for name, ids in zip(digests(batch), rows, strict=True) if name not in self._remembered}
        names, sequences = list(new), list(new.values())
        chunks = list(budget_batches(sequences, REMEMBERED_TOKENS))
        with torch.no_grad(), frozen_mode(self):
            for chunk in with_bar(chunks, "the frozen trunk reads every row once"):
                batch = completion_batch([((), sequences[i]) for i in chunk]).to(self.device)
                last_NH = self._last_hidden(batch, PADDED).float().cpu()
                self._remembered.update(zip([names[i] for i in chunk], last_NH.clone(), strict=True))

    def forget(self) -> None:
        """Let go of what `remember` kept: `scores` runs the trunk again, under the autocast of its caller."""
        self._remembered = {}

    def _last_hidden(self, batch: TokenBatch, engine: LogProbEngine) -> Tensor:
        base = base_model(self.loaded())
        return engine.encode(getattr(base, base.base_model_prefix), batch).last

    def save_pretrained(self, folder: str | Path, merged: bool = False) -> None:
        """As `HFPolicy.save_pretrained`: a sequence classifier or an adapter with its head, and `nashtune_reward.json`.

        Args:
            folder: Made if missing; files of the same name are replaced, and only once everything is written.
            merged: Add the adapter into the weights and write those.
        """
        merge = self.is_lora and (merged or self.merged_in_memory)
        facts = RewardFile(
            members=self.members,
            gain=self.normaliser.gain,
            bias=self.normaliser.bias,
            template=self.template,
            max_length=self.max_length,
            base=str(self.folder.base) if self.is_lora and not merge else None,
        )
        tokenizer = self.tokenizer()
        save_model(
            self.loaded(),
            Path(folder),
            self.folder,
            self._settings,
            merge=merge,
            finish=lambda written: finish_export(written, facts, tokenizer),
        )

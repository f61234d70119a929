"""The policy: a Hugging Face causal LM, all of its weights or an adapter trained.

Legend: N = sequences, M = completion tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.logprobs.head import base_model
from nashtune.models.config import LoraSettings, PolicyConfig
from nashtune.models.export import save_model
from nashtune.models.loading import Loaded, Task, add_lora, enable_checkpointing, load_model
from nashtune.models.locate import ModelFolder, locate
from nashtune.models.preflight import load_tokenizer
from nashtune.models.state import check_state
from nashtune.ranks import rank, together
from nashtune.sharding.placing import Sharding
from nashtune.sharding.replica import Skeleton, room_for
from nashtune.sharding.tensors import copy_full, full, rest

AdapterKind = Literal["none", "fresh", "continued"]


class HFPolicy(nn.Module, Policy):
    """A causal LM behind the `Policy` interface. Nothing is read before `load`.

    Args:
        config: What the run file says.

    Attributes:
        model: The transformers model, or a peft model around it; None before `load`.
        critic: What PPO's advantages are measured against; trained and kept with the model, and not exported.
        sharding: Over which processes the weights are cut up; set before `load`, None for not.
        adapter: "none" when all weights are trained; "fresh" with `lora`, so that the starting point is the adapter
            switched off; "continued" when the path is an adapter folder that is trained further.
        folder: The folders behind the path.
    """

    task: ClassVar[Task] = "CAUSAL_LM"

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.model: Any = None
        self.critic: nn.Module | None = None
        self.adapter: AdapterKind = "none"
        self.sharding: Sharding | None = None
        self._skeletons: dict[str, Skeleton] = {}  # of `model` and `critic`, where they are cut up
        self._whole = False  # whether a plain copy stands in for them
        self._folder: ModelFolder | None = None
        self._settings: Mapping[str, Any] = {}

    @property
    def folder(self) -> ModelFolder:
        """The folders behind the path, looked up once."""
        if self._folder is None:
            self._folder = locate(self.config.path)
        return self._folder

    @property
    def is_adapter_folder(self) -> bool:
        """Whether the path is a LoRA adapter."""
        return self.folder.is_adapter

    @property
    def is_loaded(self) -> bool:
        """Whether `load` was called."""
        return self.model is not None

    @property
    def is_lora(self) -> bool:
        """Whether an adapter is trained, a fresh one or that of an adapter folder."""
        return self.config.lora is not None or self.is_adapter_folder

    @property
    def merged_in_memory(self) -> bool:
        """Whether the fresh adapter sits on an SFT adapter merged into its base model."""
        return self.config.lora is not None and self.is_adapter_folder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def tokenizer(self) -> Any:
        """The tokenizer, freshly read (transformers' PreTrainedTokenizerBase)."""
        return load_tokenizer(self.config.path)

    def load(self) -> None:
        """Reads the weights, adds the adapter, sets up gradient checkpointing. A second call does nothing.

        Raises:
            InputError: the folder, its weights, the adapter or the LoRA settings are wrong.
        """
        if self.model is not None:
            return
        with together("policy.path") if self.sharding is not None else nullcontext():
            loaded = self.starting_model(empty=self.empty)
        self._settings = loaded.settings
        self.model = loaded.model
        if self.config.lora is not None:
            self.model = add_lora(self.model, self.config.lora, self.task)
            self.adapter = "fresh"
        elif self.is_adapter_folder:
            self.adapter = "continued"
        if self.config.gradient_checkpointing:
            enable_checkpointing(base_model(self.model))
        self.model.train()

    @property
    def is_sharded(self) -> bool:
        """Whether the model at hand is cut up over the ranks, so that all must run it together."""
        return bool(self._skeletons) and not self._whole

    @property
    def empty(self) -> bool:
        """Whether this rank builds models without their weights, which rank 0 reads and `Sharding.place` sends."""
        return self.sharding is not None and not self.sharding.reads

    def starting_model(self, *, empty: bool = False) -> Loaded:
        """The weights that training starts from, read anew, without the fresh adapter (it changes nothing yet).

        Args:
            empty: Without the weights, on torch's `meta` device, for `Sharding.place` to fill.
        """
        return load_model(
            self.folder,
            precision=self.config.precision,
            attention=self.config.attention,
            adapter="train" if self.config.lora is None else "merge",
            empty=empty,
        )

    def shard(self) -> None:
        """Cut up what is loaded, the critic too, where `sharding` says so. Collective.

        Raises:
            InputError: the model cannot be cut up; the message says why.
        """
        if self.sharding is None or self._skeletons:
            return
        self._skeletons["model"] = Skeleton(self.loaded())
        self.sharding.place(self.loaded())
        if self.critic is not None:
            self._skeletons["critic"] = Skeleton(self.critic)
            self.sharding.place_critic(self.critic)

    @contextmanager
    def inference_model(self, *, or_cpu: bool = False, later: int = 0) -> Iterator[Any]:
        """While it lasts, the policy's model and critic are plain copies of what is cut up, and it yields the model.

        Ranks may then do with the policy what they like, each for itself: sample, score, save, or load other weights
        into it, which are lost at the end. Where nothing is cut up, all of this is the live model. Entering is
        collective, leaving is not; within another one it does nothing.

        Args:
            or_cpu: Where a device has no room for the copy, put it into main memory instead.
            later: Bytes of a device that must stay free all the same.

        Raises:
            InputError: there is no room for the copy.
        """
        if not self.is_sharded:
            yield self.loaded()
            return
        assert self.sharding is not None
        device = room_for(self, self.sharding.device, or_cpu=or_cpu, later=later)
        live = {name: getattr(self, name) for name in self._skeletons}
        for name, skeleton in self._skeletons.items():
            setattr(self, name, skeleton.filled(live[name], device))
        self._whole = True
        try:
            yield self.loaded()
        finally:
            self._whole = False
            for name, part in live.items():
                setattr(self, name, part)

    def forward(self, batch: TokenBatch, engine: LogProbEngine) -> Any:
        """Features of the batch under the current weights."""
        return engine.forward(self.loaded(), batch)

    def values(self, features: Any, batch: TokenBatch, engine: LogProbEngine) -> tuple[Tensor, Tensor]:
        """The critic's values before each completion token (M,) and after the last token of each (N,), float32."""
        if self.critic is None:
            raise RuntimeError("the policy has no critic")
        found: tuple[Tensor, Tensor] = self.critic(batch, engine.states(features), engine)
        return found

    def loaded(self) -> Any:
        """The model; a RuntimeError where `load` was forgotten."""
        if self.model is None:
            raise RuntimeError("the policy's weights are not loaded: call load() first")
        return self.model

    def trained(self) -> dict[str, Tensor]:
        """Name -> weight of what is trained, as it is held; cut up, where the policy is. Tied weights appear once."""
        parts = {"": self.loaded(), **({"critic.": self.critic} if self.critic is not None else {})}
        for part in parts.values():
            rest(part)
        return {
            prefix + name: weight.detach()
            for prefix, part in parts.items()
            for name, weight in part.named_parameters()
            if weight.requires_grad
        }

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Name -> whole weight of what is trained: with LoRA the adapter alone, and the critic.

        Where the policy is cut up this is collective, and the weights are on rank 0 alone, in main memory: the others
        get an empty dictionary.
        """
        if not self.is_sharded:
            return self.trained()
        found = {}
        for name, weight in self.trained().items():  # one at a time: a device need not hold them all
            whole = full(weight)
            if rank() == 0:
                found[name] = whole.cpu()
        return found

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `trainable_state_dict`, in place; every rank has the whole weights, and takes its pieces.

        Raises:
            InputError: names or shapes differ: the checkpoint is of another model or of other LoRA settings, or it was
                altered.
        """
        own = self.trained()
        check_state(own, state)
        for name, weight in own.items():
            copy_full(weight, state[name])

    def save_pretrained(self, folder: str | Path, merged: bool = False) -> None:
        """Writes a folder that transformers (or peft) loads, with tokenizer and generation config beside the weights.

        Args:
            folder: Made if missing; files of the same name are replaced, and only once everything is written.
            merged: Add the adapter into the weights and write those. That is done in any case where the adapter sits on
                weights that are in no folder (an SFT adapter that was merged in memory): alone it would mean something
                else there.
        """
        merge = self.is_lora and (merged or self.merged_in_memory)
        save_model(self.loaded(), Path(folder), self.folder, self._settings, merge=merge)


__all__ = ["AdapterKind", "HFPolicy", "LoraSettings", "PolicyConfig"]

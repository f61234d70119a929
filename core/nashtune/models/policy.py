"""The policy: a Hugging Face causal LM, all of its weights or an adapter trained.

Legend: N = sequences, M = completion tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nashtune.errors import InputError, nearest
from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.logprobs.head import base_model
from nashtune.models.config import LoraSettings, PolicyConfig
from nashtune.models.export import save_model
from nashtune.models.loading import Loaded, Task, add_lora, enable_checkpointing, load_model
from nashtune.models.locate import ModelFolder, locate
from nashtune.models.preflight import load_tokenizer

AdapterKind = Literal["none", "fresh", "continued"]


class HFPolicy(nn.Module, Policy):
    """A causal LM behind the `Policy` interface. Nothing is read before `load`.

    Args:
        config: What the run file says.

    Attributes:
        model: The transformers model, or a peft model around it; None before `load`.
        critic: What PPO's advantages are measured against; trained and kept with the model, and not exported.
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
        loaded = self.starting_model()
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

    def starting_model(self) -> Loaded:
        """The weights that training starts from, read anew, without the fresh adapter (it changes nothing yet)."""
        return load_model(
            self.folder,
            precision=self.config.precision,
            attention=self.config.attention,
            adapter="train" if self.config.lora is None else "merge",
        )

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

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Name -> weight of what is trained: with LoRA the adapter alone, and the critic. Tied weights appear once."""
        parts = {"": self.loaded(), **({"critic.": self.critic} if self.critic is not None else {})}
        return {
            prefix + name: weight.detach()
            for prefix, part in parts.items()
            for name, weight in part.named_parameters()
            if weight.requires_grad
        }

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `trainable_state_dict`, in place.

        Raises:
            InputError: names or shapes differ: the checkpoint is of another model or of other LoRA settings.
        """
        own = dict(self.trainable_state_dict())
        where = "checkpoint: it does not belong to this policy (another model or other policy.lora settings): "
        if missing := sorted(own.keys() - state.keys()):
            raise InputError(f"{where}{len(missing)} weights are missing, such as {missing[0]}")
        if unknown := sorted(state.keys() - own.keys()):
            guess = nearest(unknown[0], own) if len(own) <= 20 else ""
            raise InputError(f"{where}{len(unknown)} weights are not in the policy, such as {unknown[0]}{guess}")
        for name, weight in own.items():
            if weight.shape != state[name].shape:
                raise InputError(f"{where}{name} is {tuple(state[name].shape)}, the policy's is {tuple(weight.shape)}")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(state[name])

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

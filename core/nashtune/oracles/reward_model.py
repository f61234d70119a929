"""Reward model: a Hugging Face sequence classifier with one output, from a folder.

Legend: N = texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jsonargparse.typing import PositiveInt

from nashtune.data.conversations import Rendering
from nashtune.data.texts import check_lengths
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt, RewardOracle, Rewards
from nashtune.oracles.frozen import Device
from nashtune.oracles.reward_reader import RewardReader
from nashtune.oracles.reward_weights import check_reward_folder

OPTION = "oracle.path"


class RewardModelOracle(RewardOracle):
    """Scores completions with a sequence classifier of one output. As a preference it is Bradley-Terry.

    Args:
        path: Folder of a Hugging Face AutoModelForSequenceClassification with one label, or of a LoRA adapter with the
            score head saved in it, the tokenizer beside it; `hub:owner/name` works too, and a run folder stands for its
            export. Of a reward model that nashtune trained, the folder's gain and bias are applied.
        template: How prompt and completion become one text. `chat`: the whole conversation through the tokenizer's chat
            template, as reward models for chats are trained; `plain`: prompt, completion and EOS put together, with
            what the tokenizer puts before a text; `pair`: two segments, as encoders such as DeBERTa read them. None:
            what the folder of a model that nashtune trained says, else `chat`.
        max_length: Longest input in tokens; the prompt's beginning is cut off where it is longer (counted as
            `shortened`), and the answer's where it is longer by itself (`answers_cut`). None: what the model and its
            tokenizer allow, and no more than in nashtune's training of it.
        batch_tokens: Tokens of a forward pass, padding included.
        precision: Of the weights, fp32 or bf16.
        device: `auto` is a GPU where there is one.
    """

    placement: ClassVar[tuple[str, ...]] = ("batch_tokens", "device")
    model_argument: ClassVar[str | None] = "path"

    def __init__(
        self,
        *,
        path: str,
        template: Literal["chat", "plain", "pair"] | None = None,
        max_length: PositiveInt | None = None,
        batch_tokens: PositiveInt = 8192,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: Device = "auto",
    ) -> None:
        self.path = path
        self.template: Rendering | None = template
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.precision = precision
        self.device: Device = device
        self._reader: RewardReader | None = None

    def prepare(self) -> None:
        """Looks at folder, config, head, tokenizer, template and device; the first score loads the weights.

        Raises:
            InputError: one of them does not fit.
        """
        folder = check_reward_folder(self.path, OPTION)
        if folder.outputs != 1:
            raise InputError(
                f"{OPTION}: {self.path} has {folder.outputs} outputs, and a reward model has 1 (num_labels=1); a "
                "classifier's class scores are no reward, and heads of an ensemble are read by the oracle "
                "reward_ensemble"
            )
        self._reader = RewardReader(
            [folder],
            template=self.template,
            max_length=self.max_length,
            batch_tokens=self.batch_tokens,
            precision=self.precision,
            device=self.device,
        )

    def counts(self) -> Mapping[str, int]:
        """Texts that were scored, and how many of them lost the beginning of their prompt, or of their answer too."""
        return dict(self._reader.counts) if self._reader is not None else {}

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        """The model's output (N,), float64.

        Raises:
            InputError: the model cannot be loaded, the template refuses a prompt, or a score is not finite.
        """
        if not check_lengths(prompts, completions):
            return Rewards(mean=torch.zeros(0, dtype=torch.float64))
        if self._reader is None:
            self.prepare()
        assert self._reader is not None
        return Rewards(mean=self._reader.scores(prompts, completions)[:, 0])

"""Reward model: a Hugging Face sequence classifier with one output, from a folder.

Legend: N = texts, T = tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt, RewardOracle, Rewards
from nashtune.models.loading import DTYPES
from nashtune.models.locate import ModelFolder
from nashtune.models.mode import frozen_mode
from nashtune.models.preflight import load_tokenizer
from nashtune.oracles.frozen import Device, budget_batches, padded, pick_device
from nashtune.oracles.reward_texts import Conversations, Rendering
from nashtune.oracles.reward_weights import check_reward_model, load_classifier
from nashtune.oracles.texts import check_lengths

OPTION = "oracle.path"


class RewardModelOracle(RewardOracle):
    """Scores completions with a sequence classifier of one output. As a preference it is Bradley-Terry.

    Args:
        path: Folder of a Hugging Face AutoModelForSequenceClassification with one label, its tokenizer beside it;
            `hub:owner/name` works too.
        template: How prompt and completion become one text. `chat`: the whole conversation through the tokenizer's chat
            template, as reward models for chats are trained; `plain`: prompt, completion and EOS put together, with
            what the tokenizer puts before a text; `pair`: two segments, as encoders such as DeBERTa read them.
        max_length: Longest input in tokens; the prompt's beginning is cut off where it is longer (counted as
            `shortened`). None: what the model and its tokenizer allow.
        batch_tokens: Tokens of a forward pass, padding included.
        precision: Of the weights, fp32 or bf16.
        device: `auto` is a GPU where there is one.
    """

    placement: ClassVar[tuple[str, ...]] = ("batch_tokens", "device")

    def __init__(
        self,
        *,
        path: str,
        template: Rendering = "chat",
        max_length: PositiveInt | None = None,
        batch_tokens: PositiveInt = 8192,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: Device = "auto",
    ) -> None:
        self.path = path
        self.template = template
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.precision = precision
        self.device = device
        self._folder: ModelFolder | None = None
        self._texts: Conversations | None = None
        self._model: Any = None
        self._counts: Counter[str] = Counter()

    def prepare(self) -> None:
        """Looks at folder, config, tokenizer, template and device; the weights are loaded with the first score.

        Raises:
            InputError: one of them does not fit.
        """
        self._folder = check_reward_model(self.path, OPTION)
        pick_device(self.device)
        self._texts = Conversations(load_tokenizer(self.path, OPTION), self.template, self.path)
        self._texts.encode([{"role": "user", "content": "a"}], "b")

    def counts(self) -> Mapping[str, int]:
        """Texts that were scored, and how many of them lost the beginning of their prompt."""
        return dict(self._counts)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        """The model's output (N,), float64.

        Raises:
            InputError: the model cannot be loaded, the template refuses a prompt, or a score is not finite.
        """
        if not check_lengths(prompts, completions):
            return Rewards(mean=torch.zeros(0, dtype=torch.float64))
        texts, model = self._ready()
        limit = self.max_length or _longest(model.config, texts.tokenizer)
        encoded = [texts.encode(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        rows = [row.last(limit) for row in encoded]
        self._counts["scored"] += len(rows)
        self._counts["shortened"] += sum(len(row.ids) > limit for row in encoded)
        scores_N = torch.empty(len(rows), dtype=torch.float64)
        with frozen_mode(model):
            for batch in budget_batches([row.ids for row in rows], self.batch_tokens):
                scores_N[batch] = _forward(model, texts.tokenizer, [rows[i] for i in batch])
        if not scores_N.isfinite().all():
            bad = int((~scores_N.isfinite()).nonzero()[0, 0])
            raise InputError(
                f"{OPTION}: {self.path} gives {scores_N[bad]} to the completion {completions[bad][:80]!r}; "
                f"with oracle.precision: bf16 try fp32"
            )
        return Rewards(mean=scores_N)

    def _ready(self) -> tuple[Conversations, Any]:
        if self._model is None:
            if self._texts is None:
                self.prepare()
            assert self._folder is not None
            self._model = load_classifier(self._folder, DTYPES[self.precision], OPTION).to(pick_device(self.device))
        assert self._texts is not None
        return self._texts, self._model


def _forward(model: Any, tokenizer: Any, rows: Sequence[Any]) -> Tensor:
    """Scores (N,) of one batch, padded on the right."""
    config = model.config.get_text_config()
    pad = padding_id([row.ids[-1] for row in rows], tokenizer.pad_token_id)
    # Decoders read the score at the last token that is not the pad token. Where padding shares its id with EOS they
    # would step over the EOS that ends every text, so the id is chosen such that it ends none.
    config.pad_token_id = pad
    ids_NT, mask_NT = padded([row.ids for row in rows], pad, "right")
    inputs = {"input_ids": ids_NT, "attention_mask": mask_NT}
    if rows[0].segments is not None:
        inputs["token_type_ids"], _ = padded([row.segments for row in rows], 0, "right")
    device = next(model.parameters()).device
    logits_N1: Tensor = model(**{name: value.to(device) for name, value in inputs.items()}).logits
    return logits_N1[:, 0].double().cpu()


def padding_id(last: Sequence[int], usual: int | None) -> int:
    """A token id that ends none of the rows: the usual one where it does not, else the smallest."""
    ends = set(last)
    if usual is not None and usual not in ends:
        return usual
    return next(token for token in range(len(ends) + 1) if token not in ends)


def _longest(config: Any, tokenizer: Any) -> int:
    """Tokens that the model has positions for, as far as config and tokenizer say."""
    places = getattr(config.get_text_config(), "max_position_embeddings", None)
    known = [size for size in (places, tokenizer.model_max_length) if isinstance(size, int) and size > 0]
    return min(known, default=1_000_000)

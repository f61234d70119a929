"""Reward models read prompts and completions: the scores of one or several, as plain transformers gives them.

Legend: N = texts, T = tokens, K = members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from nashtune.data.budget import budget_batches, padded
from nashtune.data.conversations import Conversations, Rendering, Tokens
from nashtune.data.texts import text_of
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt
from nashtune.models.loading import DTYPES
from nashtune.models.mode import frozen_mode
from nashtune.models.preflight import load_tokenizer
from nashtune.models.reward_folder import REWARD_FILE
from nashtune.oracles.ensemble_members import Part, check_same_tokenizer, load_parts
from nashtune.oracles.frozen import Device, pick_device
from nashtune.oracles.reward_weights import RewardFolder


class RewardReader:
    """Scores texts with all members; the weights are loaded with the first text.

    `counts` has the texts that were scored; those that lost their beginning (`shortened`); and those among them where
    that was not the prompt's alone, but the answer's too (`answers_cut`).

    Args:
        folders: The reward models, looked at.
        template: As the oracles take it; None: what the folders say, else "chat".
        max_length: Longest input in tokens; None: what folders, models and tokenizer allow.
        batch_tokens: Tokens of a forward pass, padding included.
        precision: "fp32" or "bf16".
        device: Where to.

    Raises:
        InputError: the tokenizers differ, or they do not fit the template, or there is no such device.
    """

    def __init__(
        self,
        folders: Sequence[RewardFolder],
        *,
        template: Rendering | None,
        max_length: int | None,
        batch_tokens: int,
        precision: str,
        device: Device,
    ) -> None:
        self.folders = list(folders)
        self.counts: Counter[str] = Counter()
        self._max_length, self._batch_tokens, self._precision = max_length, batch_tokens, precision
        self._device = pick_device(device)
        tokenizers = [load_tokenizer(folder.files.path, folder.option) for folder in folders]
        check_same_tokenizer(self.folders, tokenizers)
        self.texts = Conversations(tokenizers[0], template or _template(self.folders), self.folders[0].path)
        self.texts.encode([{"role": "user", "content": "a"}], "b")
        gains = [gain for folder in folders for gain in (folder.card.gain if folder.card else [1.0] * folder.outputs)]
        biases = [bias for folder in folders for bias in (folder.card.bias if folder.card else [0.0] * folder.outputs)]
        self._gain_K, self._bias_K = (torch.tensor(values, dtype=torch.float64) for values in (gains, biases))
        self._parts: list[Part] = []

    @property
    def members(self) -> int:
        """K, their number."""
        return len(self._gain_K)

    def scores(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        """Each member's gain * output + bias (N, K), float64, on the CPU; N >= 1.

        Raises:
            InputError: a model cannot be loaded, the template refuses a prompt, or a score is not finite.
        """
        parts = self._parts = self._parts or load_parts(self.folders, DTYPES[self._precision], self._device)
        limit = self._limit(parts)
        encoded = [
            self.texts.encode(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)
        ]
        rows = [row.last(limit) for row in encoded]
        given = zip(encoded, prompts, completions, strict=True)
        cut = [self.texts.cuts_answer(*one, limit) for one in given if len(one[0].ids) > limit]
        self.counts["scored"] += len(rows)
        self.counts["shortened"] += len(cut)
        self.counts["answers_cut"] += sum(cut)
        raw_NK = torch.empty(len(rows), self.members, dtype=torch.float64)
        for part in parts:
            for adapter, columns in part.views.items():
                if adapter is not None:
                    part.model.set_adapter(adapter, inference_mode=True)
                with frozen_mode(part.model):
                    for batch in budget_batches([row.ids for row in rows], self._batch_tokens):
                        taken = [rows[i] for i in batch]
                        raw_NK[torch.tensor(batch)[:, None], columns] = _outputs(
                            part.model, self.texts.tokenizer, taken
                        )
        scores_NK = raw_NK * self._gain_K + self._bias_K
        self._refuse_infinite(scores_NK, prompts, completions)
        return scores_NK

    def _limit(self, parts: Sequence[Part]) -> int:
        trained = [f.card.max_length for f in self.folders if f.card is not None and f.card.max_length is not None]
        return self._max_length or min(
            [*trained, *(_longest(part.model.config, self.texts.tokenizer) for part in parts)]
        )

    def _refuse_infinite(self, scores_NK: Tensor, prompts: Sequence[Prompt], completions: Sequence[str]) -> None:
        wrong = torch.nonzero(~scores_NK.isfinite())
        if not len(wrong):
            return
        row, member = (int(place) for place in wrong[0])
        folder, output = [(folder, k) for folder in self.folders for k in range(folder.outputs)][member]
        name = folder.path if folder.outputs == 1 else f"{folder.path}, output {output}"
        raise InputError(
            f"{folder.option}: {f'member {member} ({name})' if self.members > 1 else name} gives "
            f"{float(scores_NK[row, member])} to the completion {completions[row][:80]!r} of the prompt "
            f"{text_of(prompts[row])[:80]!r}; with oracle.precision: bf16 try fp32"
        )


def _template(folders: Sequence[RewardFolder]) -> Rendering:
    said = {folder.card.template: folder.path for folder in folders if folder.card and folder.card.template}
    if other := set(said) - {"chat", "plain"}:
        raise InputError(f"{folders[0].option}: {REWARD_FILE} names the template {other.pop()!r}; allowed: chat, plain")
    if len(said) > 1:
        raise InputError(
            "oracle.template: the members were trained with different ones: "
            f"{', '.join(f'{path} with {template}' for template, path in said.items())}; an ensemble reads one text"
        )
    return cast(Rendering, next(iter(said), "chat"))


def _outputs(model: Any, tokenizer: Any, rows: Sequence[Tokens]) -> Tensor:
    """Outputs of one batch (N, outputs), float64, padded on the right."""
    config = model.config.get_text_config()
    pad = padding_id([row.ids[-1] for row in rows], tokenizer.pad_token_id)
    # Decoders read the score at the last token that is not the pad token. Where padding shares its id with EOS they
    # would step over the EOS that ends every text, so the id is chosen such that it ends none.
    config.pad_token_id = pad
    ids_NT, mask_NT = padded([row.ids for row in rows], pad, "right")
    inputs = {"input_ids": ids_NT, "attention_mask": mask_NT}
    segments = [row.segments for row in rows if row.segments is not None]
    if segments:
        inputs["token_type_ids"], _ = padded(segments, 0, "right")
    device = next(model.parameters()).device
    logits: Tensor = model(**{name: value.to(device) for name, value in inputs.items()}).logits
    return logits.double().cpu()


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

"""Decoding with transformers' `generate`, for models whose cache cannot be kept row by row.

Legend: R = rows, M = new tokens, T = positions, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from nashtune.errors import InputError
from nashtune.logprobs.head import accumulation_dtype, base_model
from nashtune.samplers.batching import left_padded, positions
from nashtune.samplers.decode import Row, Settings
from nashtune.samplers.decode_model import Start, mix_logits
from nashtune.samplers.noise import Drawn, draw
from nashtune.samplers.stops import Ends


def decode_generate(
    model: Any,
    start: Start | None,
    prompts: Sequence[Sequence[int]],
    prompt_of_row: Sequence[int],
    uniform_RM: Tensor,
    settings: Settings,
) -> list[Row]:
    """As `decode.decode`; every row has a prompt of its own, and goes on until the last one ends."""
    ids_RT, mask_RT = left_padded([prompts[i] for i in prompt_of_row], settings.pad, uniform_RM.device)
    width = ids_RT.shape[1]
    drawing = Drawing(uniform_RM, settings)
    ending = Ending(settings.ends, width, len(prompt_of_row))
    with _plain_settings(model):
        out = model.generate(
            input_ids=ids_RT,
            attention_mask=mask_RT,
            **positions(model, mask_RT),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=settings.max_new_tokens,
                eos_token_id=list(settings.ends.eos),
                pad_token_id=settings.pad,
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList(
                [*([MixWithStart(start, settings.weight, mask_RT)] if start else []), drawing]
            ),
            stopping_criteria=StoppingCriteriaList([ending]),
        )
    logp = torch.stack([drawn.logp for drawn in drawing.drawn], dim=1).tolist()
    kept = [drawn.kept for drawn in drawing.drawn if drawn.kept is not None]
    mass = torch.stack(kept, dim=1).tolist() if kept else [[]] * len(logp)
    return [
        Row(tokens=tokens[:length], logp=logp_M[:length], kept=mass_M[:length], stopped=length is not None)
        for tokens, logp_M, mass_M, length in zip(out[:, width:].tolist(), logp, mass, ending.lengths, strict=True)
    ]


class Drawing(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Turns greedy search into sampling: the token that was drawn is the only one left.

    Args:
        uniform_RM: The rows' random numbers.
        settings: Temperature and top-p.

    Attributes:
        drawn: One entry for each call.
    """

    def __init__(self, uniform_RM: Tensor, settings: Settings) -> None:
        self._uniform_RM = uniform_RM
        self._settings = settings
        self.drawn: list[Drawn] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V): 0 at the drawn token, -inf elsewhere."""
        uniform_R = self._uniform_RM[:, len(self.drawn)]
        self.drawn.append(draw(scores, uniform_R, self._settings.temperature, self._settings.top_p))
        return torch.full_like(scores, -torch.inf).scatter_(1, self.drawn[-1].token[:, None], 0.0)


class Ending(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Ends a row where its completion does.

    Args:
        ends: EOS tokens and stop strings.
        width: Tokens of the padded prompts, where completions begin.
        rows: Of the batch.

    Attributes:
        lengths: For each row, tokens of the completion up to its end; None as long as it has none.
    """

    def __init__(self, ends: Ends, width: int, rows: int) -> None:
        self._ends = ends
        self._width = width
        self.lengths: list[int | None] = [None] * rows

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row has ended (R,)."""
        for row, tokens in enumerate(input_ids[:, self._width :].tolist()):
            if self.lengths[row] is None and self._ends.ended(tokens):
                self.lengths[row] = len(tokens)
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)


class MixWithStart(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Runs the starting policy beside the model that is decoded, and mixes the logits of the two.

    Args:
        start: Model to call, and a context manager factory under which it is the starting policy.
        weight: Of the starting policy, in (0, 1].
        mask_RT: 1 on the tokens of the prompts, 0 on the padding before them.
    """

    def __init__(self, start: Start, weight: float, mask_RT: Tensor) -> None:
        self._model, self._context = start
        self._weight = weight
        self._mask = mask_RT
        self._cache: Any = None
        self._few = {"logits_to_keep": 1} if base_model(self._model)._supports_logits_to_keep() else {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mixed logits (R, V); `scores` are the policy's."""
        new = input_ids if self._cache is None else input_ids[:, -1:]
        grown = input_ids.shape[1] - self._mask.shape[1]
        self._mask = torch.nn.functional.pad(self._mask, (0, grown), value=1)
        place = {name: value[:, -new.shape[1] :] for name, value in positions(self._model, self._mask).items()}
        with self._context():
            out = self._model(
                input_ids=new,
                attention_mask=self._mask,
                past_key_values=self._cache,
                use_cache=True,
                **place,
                **self._few,
            )
        self._cache = getattr(out, "past_key_values", None)
        if self._cache is None:
            raise InputError(f"sampler: `mixture` needs a key-value cache, and {type(self._model).__name__} has none")
        return mix_logits(scores, out.logits[:, -1].to(accumulation_dtype(scores.dtype)), self._weight)


@contextmanager
def _plain_settings(model: Any) -> Iterator[None]:
    """Generation settings that say nothing: `generate` fills its own from them otherwise."""
    # a PEFT model hands its settings down to the model inside and leaves them there
    holders = [model, *([base_model(model)] if hasattr(model, "get_base_model") else [])]
    kept = [(holder, holder.generation_config) for holder in holders]
    for holder in holders:
        holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for holder, settings in kept:
            holder.generation_config = settings

"""The decode loop: each prompt is computed once for all its completions, and a row is gone as soon as it ends.

transformers' `generate` can do neither, nor can it draw by one number per token.

Legend: U = prompts, R = rows, M = new tokens, T = positions of the padded prompts, C = T + M, n = positions so far,
V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nashtune.samplers.batching import compacted, left_padded
from nashtune.samplers.decode_model import Runner, mix_logits
from nashtune.samplers.noise import Drawn, draw
from nashtune.samplers.stops import Ends


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How tokens are drawn, and where a row ends.

    Args:
        max_new_tokens: Longest row.
        temperature: 0 takes the most likely token.
        top_p: Mass of the nucleus.
        ends: EOS tokens and stop strings.
        weight: Of the second model's logits in the mixture.
        pad: Token id that stands before the shorter prompts.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    ends: Ends
    weight: float
    pad: int


@dataclass
class Row:
    """What was drawn behind a prompt.

    Args:
        tokens: Token ids.
        logp: Their log-probs, see `noise.Drawn`.
        kept: With top-p, mass of the nucleus of each.
        stopped: Whether it ended by EOS or a stop string.
    """

    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    stopped: bool = False


def decode(
    models: Sequence[Runner],
    prompts: Sequence[Sequence[int]],
    prompt_of_row: Sequence[int],
    uniform_RM: Tensor,
    settings: Settings,
) -> list[Row]:
    """Rows behind prompts.

    Args:
        models: The policy, and for a mixture the starting policy; fresh ones.
        prompts: Token ids; each is computed once.
        prompt_of_row: Which of them each row continues.
        uniform_RM: The rows' random numbers, where the models are.
        settings: As documented there.
    """
    device, most = uniform_RM.device, settings.max_new_tokens
    ids_UT, mask_UT = left_padded(prompts, settings.pad, device)
    width = ids_UT.shape[1]
    rows = [Row() for _ in prompt_of_row]
    slots = rows  # who stands in each row of the tensors
    prompt_R = torch.tensor(prompt_of_row, device=device)
    logits_RV = _mixed([model.prefill(ids_UT, mask_UT) for model in models], settings.weight)[prompt_R]
    mask_RC = torch.nn.functional.pad(mask_UT, (0, most), value=1)[prompt_R]
    position_R = mask_UT.sum(-1)[prompt_R]
    for at in range(most):
        drawn = draw(logits_RV, uniform_RM[:, at], settings.temperature, settings.top_p)
        _note(slots, drawn, settings.ends)
        alive = [slot for slot, row in enumerate(slots) if not row.stopped]
        if not alive or at + 1 == most:
            break
        token_R = drawn.token
        order = compacted(alive)
        order_R = torch.tensor(order, device=device)
        if len(alive) < len(slots):
            slots = [slots[slot] for slot in order]
            token_R, uniform_RM, mask_RC, position_R = (x[order_R] for x in (token_R, uniform_RM, mask_RC, position_R))
        for model in models:
            if at == 0:
                model.spread(prompt_R[order_R], width + most - 1)  # the last token drawn is never read
            elif len(order) < len(logits_RV):
                model.keep(order, device)
        n = width + at + 1
        logits_RV = _mixed([model.step(token_R, mask_RC[:, :n], position_R + at) for model in models], settings.weight)
    return rows


def _mixed(logits: Sequence[Tensor], weight: float) -> Tensor:
    return logits[0] if len(logits) == 1 else mix_logits(logits[0], logits[1], weight)


def _note(slots: Sequence[Row], drawn: Drawn, ends: Ends) -> None:
    parts = [drawn.token, drawn.logp] if drawn.kept is None else [drawn.token, drawn.logp, drawn.kept]
    # one transfer: float64 holds token ids and float32 exactly
    for row, (token, logp, *kept) in zip(slots, torch.stack([x.double() for x in parts], dim=1).tolist(), strict=True):
        row.tokens.append(int(token))
        row.logp.append(logp)
        row.kept.extend(kept)
        row.stopped = ends.ended(row.tokens)

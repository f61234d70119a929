"""The noise of sampling: one uniform number per token, and the token that it gives.

Legend: R = rows, V = vocabulary, M = new tokens, B = blocks of the vocabulary, S = tokens of a block, C = candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nashtune.logprobs.head import accumulation_dtype

BLOCK = 128  # tokens whose probabilities are summed in float32; the sums of blocks are added up in float64
CANDIDATES = 1024  # most likely tokens among which a nucleus is looked for before the whole vocabulary is sorted


class Drawn(NamedTuple):
    """One token of each row.

    Args:
        token: (R,).
        logp: Its log-prob (R,) under the distribution it was drawn from: after temperature and top-p, renormalised. At
            temperature 0 that is a point mass, hence 0. NaN where the logits were not finite.
        kept: Mass (R,) of the nucleus before renormalising; None without top-p.
    """

    token: Tensor
    logp: Tensor
    kept: Tensor | None


def draw(logits_RV: Tensor, uniform_R: Tensor, temperature: float, top_p: float = 1.0) -> Drawn:
    """Each row's token is where the cumulative probability, by token id, exceeds the row's uniform number.

    A draw depends neither on the other rows nor on their number, beyond floating-point rounding of the logits. One
    number is read per token: noise on every logit, from a stream of the row's own, costs more than a small model.

    Args:
        logits_RV: (R, V).
        uniform_R: float64 in [0, 1), where the logits are.
        temperature: The distribution is softmax(logits / temperature); 0 takes the most likely token.
        top_p: Mass of the nucleus that is drawn from, see `nucleus`; 1 draws from everything.
    """
    if temperature == 0:
        best_R, token_R = logits_RV.max(-1)
        return Drawn(token_R, torch.where(best_R.isfinite(), 0.0, torch.nan), None)
    logits_RV = logits_RV.to(accumulation_dtype(logits_RV.dtype))
    if temperature != 1:
        logits_RV = logits_RV / temperature
    if top_p < 1:
        logp_RV, kept_R = nucleus(logits_RV.log_softmax(-1), top_p)
        token_R = invert(logp_RV.exp(), uniform_R)
        return Drawn(token_R, logp_RV.gather(-1, token_R[:, None])[:, 0], kept_R)
    prob_RV = logits_RV.softmax(-1)
    token_R = invert(prob_RV, uniform_R)
    return Drawn(token_R, prob_RV.gather(-1, token_R[:, None])[:, 0].log(), None)


def invert(prob_RV: Tensor, uniform_R: Tensor) -> Tensor:
    """First token (R,) at which the cumulative sum exceeds `uniform_R` times the row's whole sum.

    A token of probability 0 is never drawn. The sum of a block of 128 neighbours is a float32, everything else is
    float64: among 50,000 tokens the rarest, too, has its share of the numbers, up to the rounding of float32.
    """
    size = prob_RV.shape[1]
    whole = size // BLOCK * BLOCK
    sums_RB = prob_RV[:, :whole].view(len(prob_RV), -1, BLOCK).sum(-1)
    if whole < size:
        sums_RB = torch.cat([sums_RB, prob_RV[:, whole:].sum(-1, keepdim=True)], dim=1)
    upto_RB = sums_RB.cumsum(-1, dtype=torch.float64)
    aim_R1 = uniform_R[:, None] * upto_RB[:, -1:]
    block_R1 = _first_beyond(upto_RB, aim_R1)
    before_R1 = upto_RB.gather(1, (block_R1 - 1).clamp_min(0)).masked_fill(block_R1 == 0, 0.0)
    at_RS = block_R1 * BLOCK + torch.arange(BLOCK, device=prob_RV.device)
    prob_RS = prob_RV.gather(1, at_RS.clamp_max(size - 1)).masked_fill(at_RS >= size, 0.0)
    upto_RS = prob_RS.cumsum(-1, dtype=torch.float64)
    # in units of the block's own float64 sum: beside a likely token the float32 sum does not know its rare neighbours
    aim_R1 = (aim_R1 - before_R1) * (upto_RS[:, -1:] / sums_RB.gather(1, block_R1))
    inside_R1 = _first_beyond(upto_RS, aim_R1)
    return (block_R1 * BLOCK + inside_R1)[:, 0]


def _first_beyond(upto: Tensor, aim: Tensor) -> Tensor:
    """Place of the first sum beyond the aim; where rounding leaves none, the last place that added anything."""
    beyond = (upto <= aim).sum(-1, keepdim=True)
    last = (upto < upto[:, -1:]).sum(-1, keepdim=True)
    return torch.minimum(beyond, last)


def nucleus(logp_RV: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Log-probs (R, V) renormalised over the nucleus, -inf outside of it, and its mass (R,) before.

    The nucleus is the smallest set of most likely tokens whose mass reaches `top_p`; it has at least one token, and of
    equally likely ones that with the lower id comes first.
    """
    sorted_RC = logp_RV.topk(min(CANDIDATES, logp_RV.shape[1]), dim=-1).values
    mass_RC = sorted_RC.double().exp()
    if not bool((mass_RC.sum(-1) >= top_p).all()):
        sorted_RC = logp_RV.sort(dim=-1, descending=True).values
        mass_RC = sorted_RC.double().exp()
    inside_RC = mass_RC.cumsum(-1) - mass_RC < top_p  # what stands before a token has not reached top_p
    inside_RC[:, 0] = True
    kept_R = (mass_RC * inside_RC).sum(-1).clamp_max(1.0).to(logp_RV.dtype)
    count_R1 = inside_RC.sum(-1, keepdim=True)
    edge_R1 = sorted_RC.gather(-1, count_R1 - 1)
    above_RV, at_edge_RV = logp_RV > edge_R1, logp_RV == edge_R1
    room_R1 = count_R1 - above_RV.sum(-1, keepdim=True)
    keep_RV = above_RV | (at_edge_RV & (at_edge_RV.cumsum(-1, dtype=torch.int32) <= room_R1))
    return (logp_RV - kept_R.log()[:, None]).masked_fill(~keep_RV, -torch.inf), kept_R


def uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Uniform numbers (R, count) in [0, 1), float64 on the host: one stream per seed, of which these are the beginning.

    numpy's Philox, whose raw stream is the same in every version and on every machine, and needs no warming up.
    """
    raw = np.stack([np.random.Philox(key=seed).random_raw(count) for seed in seeds])
    return torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53)


def stream_seed(seed: int, round: int, prompt: int, k: int) -> int:
    """Seed of one completion's noise: the same on every machine, and unrelated between neighbours."""
    digest = hashlib.sha256(f"{seed}/{round}/{prompt}/{k}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # vLLM and torch take a signed 64-bit number

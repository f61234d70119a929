"""The noise of sampling: one random stream per completion, temperature, top-p.

Legend: R = rows of a batch, V = vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from nashtune.logprobs.head import accumulation_dtype


class GumbelMax(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Turns greedy search into sampling, and notes the log-prob of each token that wins.

    The arg max of log p + Gumbel noise is a draw from p. The noise of a row comes from a stream of its own, so a draw
    depends neither on the other rows nor on their number, beyond floating-point rounding of the logits.

    Args:
        temperature: The distribution is softmax(logits / temperature); 0 adds no noise and takes the most likely token.
        seeds: One per row.
        device: Where the logits are; the streams live there too, so that a GPU waits for no CPU.
        top_p: Mass of the nucleus that is drawn from, see `nucleus`; 1 draws from everything.

    Attributes:
        logp: For each token drawn, its log-prob (R,) under the distribution it was drawn from: after temperature and
            top-p, renormalised. At temperature 0 that is a point mass, hence 0. NaN where the logits were not finite.
        kept: For each token drawn, the mass (R,) of the nucleus before renormalising; empty without top-p.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device, top_p: float = 1.0) -> None:
        self.temperature = temperature
        self.top_p = top_p
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.logp: list[Tensor] = []
        self.kept: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) whose arg max is the drawn token; one draw per row and call."""
        if self.temperature == 0:
            self.logp.append(torch.where(scores.amax(-1).isfinite(), 0.0, torch.nan))
            return scores
        logp_RV = torch.log_softmax(scores.to(accumulation_dtype(scores.dtype)) / self.temperature, dim=-1)
        if self.top_p < 1:
            logp_RV, kept_R = nucleus(logp_RV, self.top_p)
            self.kept.append(kept_R)
        noisy_RV = logp_RV + torch.stack([self._gumbel(stream, scores.shape[-1]) for stream in self.streams])
        self.logp.append(logp_RV.gather(-1, noisy_RV.argmax(-1, keepdim=True)).squeeze(-1))
        return noisy_RV

    @staticmethod
    def _gumbel(stream: torch.Generator, size: int) -> Tensor:
        # float64: 24 bits of a float32 uniform cut the upper tail where a vocabulary of 50,000 still lands at times
        uniform_V = torch.rand(size, dtype=torch.float64, generator=stream, device=stream.device)
        return -torch.log(-torch.log(uniform_V.clamp_min(torch.finfo(torch.float64).tiny))).float()


def nucleus(logp_RV: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Log-probs (R, V) renormalised over the nucleus, -inf outside of it, and its mass (R,) before.

    The nucleus is the smallest set of most likely tokens whose mass reaches `top_p`; it has at least one token, and of
    equally likely ones that with the lower id comes first.
    """
    sorted_RV, order_RV = logp_RV.sort(dim=-1, descending=True, stable=True)
    mass_RV = sorted_RV.double().exp()
    inside_RV = mass_RV.cumsum(-1) - mass_RV < top_p  # what stands before a token has not reached top_p
    inside_RV[:, 0] = True
    kept_R = (mass_RV * inside_RV).sum(-1).clamp_max(1.0).to(logp_RV.dtype)
    keep_RV = torch.zeros_like(inside_RV).scatter(-1, order_RV, inside_RV)
    return (logp_RV - kept_R.log()[:, None]).masked_fill(~keep_RV, -torch.inf), kept_R


def stream_seed(seed: int, round: int, prompt: int, k: int) -> int:
    """Seed of one completion's noise: the same on every machine, and unrelated between neighbours."""
    digest = hashlib.sha256(f"{seed}/{round}/{prompt}/{k}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch.Generator takes a signed 64-bit number

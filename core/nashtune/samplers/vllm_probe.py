"""Proof that an engine answers as the live policy does: one sequence scored, one completion drawn, on both sides.

A server may answer 200 and keep an old LM head, so nothing short of comparing numbers shows that weights arrived. What
the comparison cannot see is an update that moves the probe's log-probs by less than rounding does.

Legend: M = completion tokens, V = vocabulary.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from nashtune.data.collate import completion_batch
from nashtune.logprobs.dense import DenseEngine
from nashtune.logprobs.head import base_model
from nashtune.models.mode import frozen_mode
from nashtune.samplers.noise import nucleus
from nashtune.samplers.vllm_engines import Engine, Request, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.models.policy import HFPolicy

# Largest difference of a token's log-prob, in nats. Seen: 1e-6 in fp32; between fp32 weights and a server in bf16, on a
# model of 135M parameters, 0.54 on a token of log-prob -15, and 0.07 on average.
TOLERANCE = {"float32": 1e-3, "bfloat16": 1.0, "float16": 0.15}
MEAN_SHARE = 5  # the mean over the tokens may be a fifth of that: one odd token is rounding, many are other weights
PROMPT, DRAWN = 8, 16  # tokens of the drawn probe
LONGEST = 48
TEXT = (
    "A fair coin is thrown three times. What is the chance of two heads? Count the cases: there are eight, and in "
    "three of them two coins show heads, so the answer is 3/8. Explain in your own words why order does not matter."
)


class Difference(NamedTuple):
    """Between two sides' log-probs of the same tokens, in nats."""

    largest: float
    mean: float

    def within(self, tolerance: float) -> bool:
        """Whether rounding explains it; NaN is never within."""
        return self.largest <= tolerance and self.mean <= tolerance / MEAN_SHARE

    def __str__(self) -> str:
        return f"by up to {self.largest:.3g} nats, on average by {self.mean:.3g},"


def probe_ids(tokenizer: Any) -> list[int]:
    """Token ids of an ordinary text, at most 48."""
    return [int(token) for token in tokenizer(TEXT)["input_ids"]][:LONGEST]


def live_logits(policy: HFPolicy, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """The live policy's float32 logits (M, V) at the positions that predict a completion, by the dense engine."""
    batch = completion_batch([(prompt, completion)]).to(policy.device)
    # without autocast: the server's weights are the saved ones, and so are these
    with frozen_mode(policy), torch.autocast(policy.device.type, enabled=False):
        logits: Tensor = policy.forward(batch, DenseEngine()).logits
    return logits


def tempered_logp(policy: HFPolicy, prompt: Sequence[int], completion: Sequence[int], temperature: float) -> Tensor:
    """Log-probs (M, V) under softmax(logits / temperature)."""
    return (live_logits(policy, prompt, completion) / temperature).log_softmax(-1)


def token_logp(policy: HFPolicy, prompt: Sequence[int], completion: Sequence[int], temperature: float) -> list[float]:
    """Log-prob of each completion token under softmax(logits / temperature), all of the vocabulary in it."""
    logp_MV = tempered_logp(policy, prompt, completion, temperature)
    return _gather(logp_MV, completion).tolist()


def weights_difference(engine: Engine, policy: HFPolicy, ids: Sequence[int]) -> Difference:
    """Between the engine's and the live policy's log-probs of the probe."""
    return _difference(
        [abs(a - b) for a, b in zip(engine.score(ids), token_logp(policy, ids[:1], ids[1:], 1.0), strict=True)]
    )


def tolerance_of(policy: HFPolicy, engine_dtype: str) -> float:
    """What rounding may make of the same weights: that of the coarser dtype of the two sides."""
    own = str(next(policy.parameters()).dtype).removeprefix("torch.")
    return max(TOLERANCE.get(name, 0.0) for name in (own, engine_dtype or own))


def mismatch(difference: Difference, tolerance: float, policy: HFPolicy) -> str:
    """What to tell where an engine has just loaded the live weights and answers otherwise."""
    tied = getattr(base_model(policy.loaded()).config.get_text_config(), "tie_word_embeddings", False)
    cause = (
        "Likely cause: the model's LM head is tied to its embedding, and the CPU build of vLLM keeps the old head; "
        "serve this model on a GPU, or use the sampler `policy`"
        if tied
        else "Likely causes: the server quantises or computes in another precision (compare --dtype; sampler.tolerance "
        "sets what is accepted), or it did not load every weight (see its log)"
    )
    return (
        f"after loading the live weights its log-probs of a probe text differ {difference} from the policy's own; "
        f"accepted: {tolerance:.3g}, on average {tolerance / MEAN_SHARE:.3g}. {cause}"
    )


def draw_difference(
    engine: Engine, policy: HFPolicy, ids: Sequence[int], settings: Settings, slack: float
) -> Difference:
    """Between drawn tokens' log-probs and those under the distribution asked for.

    Args:
        engine: Draws a completion of the probe's beginning.
        policy: Holds the same weights.
        ids: The probe.
        settings: Of the distribution; temperature > 0.
        slack: How far rounding may shift the edge of the nucleus, in probability.
    """
    prompt = ids[:PROMPT]
    short = Settings(**{**vars(settings), "max_new_tokens": min(DRAWN, settings.max_new_tokens)})
    (one,) = engine.draw([Request(prompt=prompt, seed=0)], short, threading.Event())
    logp_MV = tempered_logp(policy, prompt, one.token_ids, settings.temperature)
    plain_M = _gather(logp_MV, one.token_ids)
    given_M = torch.tensor(one.token_logp, device=plain_M.device)
    if settings.top_p == 1.0:
        return _difference((given_M - plain_M).abs().tolist())
    most_M = plain_M - nucleus(logp_MV, settings.top_p - slack)[1].log()
    least_M = plain_M - nucleus(logp_MV, settings.top_p + slack)[1].log()
    return _difference(torch.maximum(least_M - given_M, given_M - most_M).clamp_min(0).tolist())


def _gather(logp_MV: Tensor, tokens: Sequence[int]) -> Tensor:
    return logp_MV.gather(1, torch.tensor(tokens, device=logp_MV.device)[:, None])[:, 0]


def _difference(values: Sequence[float]) -> Difference:
    # max() would pass over a NaN
    largest = math.nan if any(map(math.isnan, values)) else max(values)
    return Difference(largest=largest, mean=sum(values) / len(values))

"""Sampler `mixture`: Nash-MD's geometric mixture of the policy with the starting policy, token by token.

Munos et al., Nash Learning from Human Feedback, arXiv:2312.00886, section 7.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Surroundings
from nashtune.models.policy import HFPolicy
from nashtune.references.live import freeze
from nashtune.samplers.decode_model import Start
from nashtune.samplers.generate import LiveSampler


class MixtureSampler(LiveSampler):
    """Draws each token from softmax((1 - w) logits_policy + w logits_start), then temperature and top-p as usual.

    w = 0 is the policy, w = 1 the policy at the start of training. Both models run at every token, each with its own
    key-value cache. `Completion.token_logp` is under the mixture.

    The product of these token mixtures is not the mixture of the sequences' probabilities, policy(y)^(1-w) start(y)^w
    normalised over all y, whose constant nobody can compute; the paper samples from the token mixture too.

    Args:
        coefficient: Weight w of the starting policy, in [0, 1]; None takes what the method says (its loss or its
            schedule). Where both say a number they must agree. The paper's best: 0.125 to 0.375.
        completions: Completions of each prompt and round.
        max_new_tokens: Longest completion in tokens, EOS included.
        temperature: The distribution is softmax(mixed logits / temperature); 0 takes the most likely token.
        top_p: Draws only from the smallest set of most likely tokens whose probability reaches this; 1 draws from all
            tokens. Without effect at temperature 0.
        stop: A completion also ends after the token that completes one of these strings. The string stays in it.
        batch_tokens: Largest size of a batch in tokens, rows times (longest prompt + max_new_tokens); two models hold
            a cache of that size.
    """

    mixes: ClassVar[bool] = True

    def __init__(
        self,
        *,
        coefficient: ClosedUnitInterval | None = None,
        completions: PositiveInt = 8,
        max_new_tokens: PositiveInt = 256,
        temperature: NonNegativeFloat = 1.0,
        top_p: ClosedUnitInterval = 1.0,
        stop: list[str] | None = None,
        batch_tokens: PositiveInt = 16384,
    ) -> None:
        super().__init__(
            completions=completions,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            batch_tokens=batch_tokens,
        )
        self.coefficient = None if coefficient is None else float(coefficient)

    def attach(self, surroundings: Surroundings) -> None:
        """Remembers the policy and the starting policy."""
        if surroundings.start_logits is None:
            raise RuntimeError("sampler mixture needs Surroundings.start_logits; see start_logits(policy)")
        super().attach(surroundings)

    def _weight(self, reference_weight: float | None) -> float:
        asked = self.coefficient if reference_weight is None else reference_weight
        if asked is None:
            raise InputError(
                "sampler.coefficient: `mixture` needs the weight of the starting policy, and neither the loss nor the "
                "schedule says one; set spec.sampler.coefficient (0 is the policy, 1 the starting policy)"
            )
        if self.coefficient is not None and abs(asked - self.coefficient) > 1e-9:
            raise InputError(
                f"sampler.coefficient: {self.coefficient:g} is set, but the method draws from a mixture with weight "
                f"{asked:g}; leave spec.sampler.coefficient out"
            )
        if not 0 <= asked <= 1:
            raise InputError(f"sampler: the weight of the starting policy is {asked:g}; it must lie in [0, 1]")
        return asked

    def _start(self, weight: float, device: torch.device) -> Start | None:
        if weight == 0:
            return None
        assert self._surroundings is not None and self._surroundings.start_logits is not None
        model, context = self._surroundings.start_logits
        if next(model.parameters()).device != device:
            model.to(device)  # a frozen copy stays where it was made until it is used
        return model, context


def start_logits(policy: HFPolicy) -> Start:
    """What `Surroundings.start_logits` needs.

    With a fresh LoRA adapter it is the policy's own module with the adapter switched off. (peft's `get_base_model()`
    would not do: the adapter's layers stay active in it.) Otherwise it is a second model, read anew, for in a resumed
    run the live one holds other weights. So it is where the policy is cut up, too: ranks sample each for itself.
    """
    if policy.adapter == "fresh" and policy.sharding is None:
        model = policy.loaded()
        return model, model.disable_adapter
    return freeze(policy.starting_model().model), nullcontext

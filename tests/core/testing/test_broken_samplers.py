"""A sampler is broken in one way at a time, and the check says which."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nashtune.interfaces import Sampler
from nashtune.samplers.policy import PolicySampler
from nashtune.testing import check_component


class Good(Sampler):
    """Draws as the sampler `policy` does.

    Args:
        completions: Of each prompt.
        max_new_tokens: Of each completion.
    """

    def __init__(self, *, completions: int = 4, max_new_tokens: int = 8) -> None:
        self.completions, self.max_new_tokens = completions, max_new_tokens
        self.inner = PolicySampler(completions=completions, max_new_tokens=max_new_tokens)

    def attach(self, surroundings):
        self.surroundings = surroundings
        self.inner.attach(surroundings)

    def sync(self, version, role="policy"):
        self.inner.sync(version, role)

    def change(self, drawn):
        return drawn

    def sample(self, prompts, n, *, seed, round=0, indices=None, reference_weight=None):
        drawn = self.inner.sample(
            prompts, n, seed=seed, round=round, indices=indices, reference_weight=reference_weight
        )
        return [self.change(one) for one in drawn]


class Global(Good):
    """Takes its noise from torch's random state."""

    def sample(self, prompts, n, *, seed, **how):
        return super().sample(prompts, n, seed=int(torch.randint(1000, ())), **how)


class Fixed(Good):
    """Forgets the seed."""

    def sample(self, prompts, n, *, seed, **how):
        return super().sample(prompts, n, seed=0, **how)


class EveryRoundAlike(Good):
    """Forgets the round."""

    def sample(self, prompts, n, *, round=0, **how):
        return super().sample(prompts, n, round=0, **how)


class ByPlace(Good):
    """Numbers prompts within the request."""

    def sample(self, prompts, n, *, indices=None, **how):
        return super().sample(prompts, n, **how)


class Backwards(Good):
    """Hands the completions out in reverse."""

    def sample(self, prompts, n, **how):
        return super().sample(prompts, n, **how)[::-1]


class NoVersion(Good):
    """Does not say which weights drew."""

    def change(self, drawn):
        return replace(drawn, version="")


class CutsEnd(Good):
    """Takes the end token off."""

    def change(self, drawn):
        if drawn.finish == "length" or len(drawn.token_ids) == 1:
            return drawn
        return replace(drawn, token_ids=drawn.token_ids[:-1], token_logp=drawn.token_logp[:-1], finish="length")


class SaysLength(Good):
    """Says of every completion that it was cut off."""

    def change(self, drawn):
        return replace(drawn, finish="length")


class OneEnd(Good):
    """Knows the tokenizer's end token alone."""

    def attach(self, surroundings):
        super().attach(surroundings)
        self.inner._eos = (surroundings.tokenizer.eos_token_id,)


class NoLogprobs(Good):
    """Gives no log-probs."""

    def change(self, drawn):
        return replace(drawn, token_logp=())


class Cold(Good):
    """Prices a token at another temperature than it was drawn at."""

    def change(self, drawn):
        return replace(drawn, token_logp=tuple(2.0 * logp for logp in drawn.token_logp))


class LeavesEval(Good):
    """Leaves the policy in evaluation mode."""

    def sample(self, prompts, n, **how):
        self.surroundings.policy.loaded().eval()
        return super().sample(prompts, n, **how)


class TakesAll(Good):
    """Takes a mixture and draws from the policy."""

    def sample(self, prompts, n, *, reference_weight=None, **how):
        return super().sample(prompts, n, **how)


class OwnNumber(Good):
    """Keeps another number of completions than it was given.

    Args:
        completions: Of each prompt.
        max_new_tokens: Of each completion.
    """

    def __init__(self, *, completions: int = 4, max_new_tokens: int = 8) -> None:
        super().__init__(completions=completions, max_new_tokens=max_new_tokens)
        self.completions = 8


class NoNumber(Good):
    """Has no argument for the number of completions."""

    def __init__(self, *, max_new_tokens: int = 8) -> None:
        super().__init__(max_new_tokens=max_new_tokens)


def test_a_good_one_passes():
    check_component(Good)


@pytest.mark.parametrize(
    ("rule", "sampler", "said"),
    [
        ("sampler-aside", Global, "torch's random state has moved"),
        ("sampler-aside", LeavesEval, "training mode was True and is not"),
        ("sampler-seed", Fixed, "another seed drew the same text"),
        ("sampler-seed", EveryRoundAlike, "another round drew the same text"),
        ("sampler-batches", ByPlace, "prompt 1 alone"),
        ("sampler-order", Backwards, "(prompt, k) are [(3, 3)"),
        ("sampler-order", NoVersion, "is of version ''"),
        ("sampler-end", CutsEnd, "says 'length' after"),
        ("sampler-end", SaysLength, "and says 'length'"),
        ("sampler-end", OneEnd, "goes on behind the end token"),
        ("sampler-tokens", NoLogprobs, "the log-probs ()"),
        ("sampler-logprobs", Cold, "nats a token"),
        ("sampler-mixture", TakesAll, "reference_weight 0.5"),
        ("sampler-declares", OwnNumber, "its attributes are {'completions': 8"),
        ("sampler-declares", NoNumber, "takes no completions"),
    ],
)
def test_a_broken_one_is_found(rule, sampler, said, finds):
    assert said in finds(rule, sampler)

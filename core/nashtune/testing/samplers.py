"""The contract of a sampler: a completion depends on seed and prompt alone, ends where it says, and is priced right."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from nashtune.errors import InputError
from nashtune.interfaces import Completion, Sampler, Surroundings
from nashtune.samplers.mixture import start_logits
from nashtune.samplers.stops import eos_tokens
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.declared import check_class, check_names
from nashtune.testing.policies import tiny_policy
from nashtune.testing.subject import Subject

if TYPE_CHECKING:
    from nashtune.models.policy import HFPolicy

PROMPTS = ((10, 20, 30), (11,), (25, 26, 27, 28, 29, 40, 41), (60, 61))
SMALL = {"completions": 4, "max_new_tokens": 12}
ENDS = tuple(range(2, 3)) + tuple(range(200, 220))
"""EOS of the tokenizer, and further ones of the generation settings, so that some completions end early."""
VERSION = "main@1"
CLOSE = 1e-3
Draw = Callable[..., list[Completion]]


def check(subject: Subject, options: Mapping[str, Any], prompts: Sequence[Sequence[int]] | None) -> None:
    """Check a sampler.

    Args:
        subject: The sampler.
        options: Of its constructor.
        prompts: Token ids of four prompts; None for a few.

    Raises:
        ContractError: it breaks a rule.
    """
    check_class(subject)
    check_names(subject, "sampler-declares", "placement")
    known = {argument.name for argument in subject.info.arguments}
    missing = sorted(set(SMALL) - known)
    require(not missing, subject.who, "sampler-declares", f"its constructor takes no {' and no '.join(missing)}")
    [chosen] = subject.given({**SMALL, **options})
    sampler, who = subject.make(chosen), subject.named(chosen)
    assert isinstance(sampler, Sampler)
    kept = {name: getattr(sampler, name, None) for name in SMALL}
    wanted = {name: chosen[name] for name in SMALL}
    require(kept == wanted, who, "sampler-declares", f"its attributes are {kept}, and its arguments {wanted}")
    asked = [tuple(prompt) for prompt in prompts or PROMPTS]
    policy = tiny_policy(double=True)
    with _ends(policy), tempfile.TemporaryDirectory() as folder:
        with running(who, "attach"):
            sampler.attach(_surroundings(sampler, policy, folder))
            sampler.sync(VERSION)
        weight = 0.25 if sampler.mixes and chosen.get("coefficient") is None else None

        def draw(prompts: Sequence[Sequence[int]], n: int, **how: Any) -> list[Completion]:
            how = {"seed": 3, "round": 1, "reference_weight": weight, **how}
            with running(who, f"sample of {n} completions of {len(prompts)} prompts"):
                return sampler.sample(prompts, n, **how)

        n = sampler.completions
        whole = _aside(policy, lambda: draw(asked, n), who)
        _order(whole, asked, n, who)
        _tokens(whole, policy, sampler, who)
        _seed(draw, asked, n, whole, sampler, who)
        _batches(draw, asked, n, whole, who)
        if not sampler.mixes and not sampler.replays:
            _refuses_mixture(sampler, asked, who)
        if chosen.get("temperature", 1.0) == 1.0 and not (sampler.mixes or sampler.selects or sampler.replays):
            _logprobs(whole, asked, policy, who)


def _surroundings(sampler: Sampler, policy: HFPolicy, folder: str) -> Surroundings:
    def score(prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> list[float]:
        return [float(sum(ids) % 17) for ids in completions]

    return Surroundings(
        policy=policy,
        tokenizer=policy.tokenizer(),
        start_logits=start_logits(policy) if sampler.mixes else None,
        score=score if sampler.selects else None,
        run_dir=folder,
    )


@contextmanager
def _ends(policy: HFPolicy) -> Iterator[None]:
    """With many tokens that end a completion, as chat models have several."""
    settings = policy.loaded().generation_config
    before, settings.eos_token_id = settings.eos_token_id, list(ENDS)
    try:
        yield
    finally:
        settings.eos_token_id = before


def _aside(policy: HFPolicy, draw: Callable[[], list[Completion]], who: str) -> list[Completion]:
    """Draw, and see that nothing else happened."""
    model, rule = policy.loaded(), "sampler-aside"
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for training in (True, False):
        model.train(training)
        state = torch.get_rng_state()
        found = draw()
        require(model.training == training, who, rule, f"the policy's training mode was {training} and is not")
        require(torch.equal(state, torch.get_rng_state()), who, rule, "torch's random state has moved")
    for name, weight in model.named_parameters():
        require(torch.equal(weight, weights[name]), who, rule, f"the policy's weight {name} has changed")
        require(weight.grad is None, who, rule, f"the policy's weight {name} has a gradient")
    return found


def _order(whole: Sequence[Completion], prompts: Sequence[Sequence[int]], n: int, who: str) -> None:
    wanted = [(i, k) for i in range(len(prompts)) for k in range(n)]
    found = [(one.prompt, one.k) for one in whole]
    said = f"(prompt, k) are {found[:6]}... ({len(found)}) for {n} completions of {len(prompts)} prompts"
    require(found == wanted, who, "sampler-order", said)


def _tokens(whole: Sequence[Completion], policy: HFPolicy, sampler: Sampler, who: str) -> None:
    vocabulary = int(policy.loaded().get_input_embeddings().weight.shape[0])
    ends, most = set(eos_tokens(policy.loaded(), policy.tokenizer())), sampler.max_new_tokens
    for one in whole:
        ids, name, rule = one.token_ids, f"completion {one.k} of prompt {one.prompt}", "sampler-tokens"
        require(0 < len(ids) <= most, who, rule, f"{name} has {len(ids)} tokens, and max_new_tokens is {most}")
        foreign = [token for token in ids if not 0 <= token < vocabulary]
        require(not foreign, who, rule, f"{name} holds the token {foreign[:1]}, of {vocabulary}")
        if one.token_logp or not sampler.replays:
            good = len(one.token_logp) == len(ids) and all(math.isfinite(x) and x <= 1e-9 for x in one.token_logp)
            require(good, who, rule, f"{name} has {len(ids)} tokens and the log-probs {one.token_logp}")
        require(len(one.kept_mass) in (0, len(ids)), who, rule, f"{name} has {len(one.kept_mass)} kept masses")
        if not sampler.replays:
            require(
                one.version == VERSION, who, "sampler-order", f"{name} is of version {one.version!r}, not {VERSION!r}"
            )
        rule, inner = "sampler-end", [i for i, token in enumerate(ids[:-1]) if token in ends]
        require(not inner, who, rule, f"{name} goes on behind the end token {[ids[i] for i in inner[:1]]}")
        require(one.finish in ("stop", "length"), who, rule, f"{name} ended by {one.finish!r}; 'stop' or 'length'")
        if ids[-1] in ends:
            require(one.finish == "stop", who, rule, f"{name} ends with the end token {ids[-1]} and says 'length'")
        if one.finish == "length" and not sampler.replays:
            require(len(ids) == most, who, rule, f"{name} says 'length' after {len(ids)} of {most} tokens")


def _seed(
    draw: Draw, prompts: Sequence[Sequence[int]], n: int, whole: list[Completion], sampler: Sampler, who: str
) -> None:
    again = draw(prompts, n)
    require(_ids(again) == _ids(whole), who, "sampler-seed", "the same seed drew another text")
    if sampler.replays or getattr(sampler, "temperature", None) == 0.0:  # the likeliest text, whatever the seed
        return
    for what, how in (("seed", {"seed": 4}), ("round", {"round": 2})):
        require(_ids(draw(prompts, n, **how)) != _ids(whole), who, "sampler-seed", f"another {what} drew the same text")
    if n > 1 and len({one.token_ids for one in whole if one.prompt == 0}) == 1:
        raise ContractError(who, "sampler-seed", f"{n} completions of a prompt are all the same")


def _batches(draw: Draw, prompts: Sequence[Sequence[int]], n: int, whole: list[Completion], who: str) -> None:
    known = {(one.prompt, one.k): one for one in whole}
    tries = [(f"prompt {i} alone", [i], n) for i in range(len(prompts))]
    tries += [("every other prompt", list(range(1, len(prompts), 2)), n), ("in reverse", [3, 2, 1, 0], n)]
    tries += [("one completion of each", list(range(len(prompts))), 1)] if n > 1 else []
    for what, numbers, count in tries:
        found = draw([prompts[i] for i in numbers], count, indices=numbers)
        for one in found:
            twin = known[numbers[one.prompt], one.k]
            said = f"{what}, completion {one.k} of prompt {numbers[one.prompt]} is another"
            require(one.token_ids == twin.token_ids, who, "sampler-batches", said)
            close = len(one.token_logp) == len(twin.token_logp) and all(
                math.isclose(a, b, abs_tol=CLOSE) for a, b in zip(one.token_logp, twin.token_logp, strict=True)
            )
            require(close, who, "sampler-batches", f"{said}: its log-probs")


def _refuses_mixture(sampler: Sampler, prompts: Sequence[Sequence[int]], who: str) -> None:
    try:
        sampler.sample(prompts, 1, seed=0, reference_weight=0.5)
    except InputError:
        return
    raise ContractError(who, "sampler-mixture", "it took reference_weight 0.5, and mixes is not declared")


def _logprobs(whole: Sequence[Completion], prompts: Sequence[Sequence[int]], policy: HFPolicy, who: str) -> None:
    model = policy.loaded().eval()
    for one in whole:
        prompt = list(prompts[one.prompt])
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *one.token_ids]])).logits[0, len(prompt) - 1 : -1]
        logp = logits.double().log_softmax(-1)[torch.arange(len(one.token_ids)), list(one.token_ids)].tolist()
        kept = one.kept_mass or (1.0,) * len(one.token_ids)  # what a truncated distribution was divided by
        gap = max(abs(a - b - math.log(mass)) for a, b, mass in zip(logp, one.token_logp, kept, strict=True))
        said = f"completion {one.k} of prompt {one.prompt} is off by up to {gap:.3g} nats a token"
        require(gap <= CLOSE, who, "sampler-logprobs", said)


def _ids(found: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [one.token_ids for one in found]

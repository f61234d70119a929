"""The rules that components and specs hold to, and the error that says which one is broken."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from nashtune.errors import InputError
from nashtune.notes import note

PAGE = "docs/extend/testing.md"
"""Where the rules are explained, in a checkout; whoever has the installed package alone knows the page by its title."""

RULES: dict[str, str] = {
    # every kind
    "options": "arguments without a default come from a spec that uses the component, or from the caller of the check",
    "constructs": "the constructor takes the options of every spec that uses the component",
    "documented": "the class has a summary, and each argument of its constructor a line under `Args:`",
    "typed": "each argument has an annotation of the known vocabulary, so that it is checked before anything is loaded",
    "attributes": "what the framework reads from the class is a literal of the right type, under its right name",
    "functions": "the interface's functions have its names and take what it gives",
    "runs": "it works on what the interface promises to give it",
    # loss
    "loss-values": "one value per row, in the dtype of the log-probs or scores, with a gradient",
    "loss-output": "rewards and metrics carry no gradient and have one number per row (a metric may also have one per "
    "completion token, or be a scalar); rewards of both sides or of none",
    "loss-finite": "values and gradients are finite for log-ratios up to 300 nats, and where policies are equal",
    "loss-gradient": "the gradient is that of the values, in float64; where the class says detaches, of the values "
    "with what it detaches held constant",
    "loss-rows": "a row's value depends on neither its place nor its batch-mates, unless the class says compares_rows",
    "loss-beta": "beta is taken as a scalar and per row (per side where the class says beta_per_side), and None where "
    "it says beta_optional; equal numbers give equal values",
    "loss-labels": "no soft label is a label of 1, no margin is a margin of 0, no levels are levels that all differ",
    "loss-sign": "at the start, where policy and references agree, no step that makes the better completion likelier "
    "raises the loss, nor one that makes the worse one less likely",
    "loss-reference": "away from the start, making a completion likelier under an anchor never acts as making it "
    "likelier under the policy does",
    "loss-penalty": "a larger beta never sends the policy farther from its anchors, and of two completions with equal "
    "scores the one that the policy likes more than an anchor does is not made likelier",
    "loss-ratio": "a completion that became likelier since it was drawn weighs no less than one that became less "
    "likely",
    "loss-pure": "the same batch gives the same values again, and is left as it was",
    "loss-state": "state_dict holds numbers only, and a new object that gets them goes on as the old one; the state "
    "stays finite where a step has desirable examples alone, or undesirable ones",
    "loss-declares": "it reads what its class attributes declare, and nothing else",
    "loss-advantages": "advantages and targets have one number per token; those of a prompt depend on the others of "
    "the prompt alone, or on the whole update whatever its order",
    "loss-share": "a list's share multiplies each member's loss, and members share nothing",
    "loss-theory": "reference_weight is in [0, 1], above 0 only where the class says mixes; bounds are a formula and a "
    "number > 0, or None",
    # KL controller
    "kl-beta": "beta is a tensor without gradient, float32 or wider: a scalar or one number per row, with "
    "beta_per_side (B, 2) for pairs; reward, where it has one, gives one finite number per rollout",
    "kl-bounds": "beta is finite and > 0 in float32, also after 200 steps or updates at either extreme",
    "kl-pure": "beta changes no state",
    "kl-rows": "the beta of a row goes with it in whatever order they come; of a pair or example it does not depend on "
    "those beside it, unless the class says compares_rows; both also after some steps",
    "kl-report": "one number per row or a scalar, finite and without gradient",
    "kl-resume": "state_dict holds numbers only, and a new object that gets them goes on as the old one",
    "kl-stable": "after many updates at a high KL divergence beta is not below what it is after as many at 0; where it "
    "looks at what it is told of an anchor it is not the same, and rises again after it fell; steered to its set "
    "point, a small disturbance of the loop on the test bench dies out",
    "kl-reward": "the reward of a completion is no higher where the policy likes it more than an anchor does",
    "kl-statistics": "one number per token, float32 or wider, without gradient, for each declared name; every token "
    "on its own",
    "kl-declares": "it works on the rows that its class declares, with one option at least, is told of them, and reads "
    "what the class declares and nothing else",
    # oracle
    "oracle-answers": "a preference oracle gives P in [0, 1] (NaN: no verdict), a reward oracle finite rewards and, "
    "where it knows them, variances >= 0 and one column per member; one per comparison or completion, no gradient",
    "oracle-antisymmetric": "P(y > y') + P(y' > y) = 1, to 1e-6",
    "oracle-batches": "an answer depends on neither its place nor what else is asked (of a reward oracle with "
    "counts_groups: on no other prompt), to 1e-4",
    "oracle-prompts": "a prompt may be a text or a conversation",
    "oracle-declares": "gives_variance is what it gives; model_argument and placement name its arguments",
    "oracle-counts": "counts gives whole numbers >= 0 by name",
    "oracle-placeholder": "an oracle that the run must choose refuses to judge, with a message",
    # sampler
    "sampler-order": "n completions of each prompt, ordered by prompt and k, with the version it was told",
    "sampler-seed": "the same seed draws the same; another seed or round another text, unless the temperature is 0",
    "sampler-batches": "a completion depends on (seed, round, prompt number, k) alone: not on its batch-mates, nor on "
    "how prompts are split over ranks, nor on how many are drawn",
    "sampler-tokens": "token ids of the vocabulary, at most max_new_tokens, and one finite log-prob <= 0 for each",
    "sampler-end": "a completion ends at its first end-of-sequence token, kept, and says `stop`; one that says "
    "`length` has max_new_tokens",
    "sampler-logprobs": "log-probs, plus the log of kept_mass where the distribution was cut, are the policy's at "
    "temperature 1 (without a mixture or a selection), to 1e-3 nats",
    "sampler-aside": "the policy's weights, mode and gradients and torch's random state are left as they were",
    "sampler-mixture": "one that does not mix refuses any reference_weight but None and 0",
    "sampler-declares": "completions and max_new_tokens are its arguments, placement names arguments",
    # pairing
    "pairing-asks": "it yields comparisons of two different completions, at most as many as `most` says",
    "pairing-pairs": "pairs of two different completions, at most as many as `most` says, with the oracle's P",
    "pairing-prefers": "where completion i surely beats j whenever i < j, no pair has them the other way round",
    "pairing-answers": "no answer makes no pair and is counted as `unparsed`; what is left out is counted by reason",
    "pairing-rates": "win rates are there if and only if the class says gives_win_rates: the mean P over the prompt's "
    "completions, itself counting 1/2",
    "pairing-random": "the same stream gives the same, and draws come before the first answer",
    "pairing-most": "`most` refuses a number of completions it cannot take with ValueError, and `compare` takes the "
    "others",
    # schedule
    "schedule-rounds": "rounds are declared in full: each phase uses what an earlier one has made",
    "schedule-same": "rounds() declares the same each time",
    "schedule-declares": "reads, scores and gives_previous are what its phases do",
    "schedule-plays": "the tabular runner plays it, and the policy comes out changed and normalised",
    # reference
    "reference-start": "one of the starting weights (snapshot: start) gives the policy's own log-probs at the start",
    "reference-frozen": "it gives the same after the policy was trained",
    "reference-gradient": "its log-probs carry no gradient and leave the policy's weights, mode and gradients alone",
    "reference-logits": "one that gives logits gives the same log-probs by them; one that does not says so",
    # stage
    "stage-declares": "outputs are named; placement and decides name arguments",
    "stage-thin": "its module and its constructor import no torch",
    "stage-checks": "check says what is wrong with InputError, or gives Planned with plain settings",
    # spec
    "spec-resolves": "it resolves, its plain form resolves to the same, and every component can be built",
    "spec-vectors": "vectors/NAME.json beside it has cases with a gradient, and they pass",
    "spec-trains": "two optimiser steps on a two-layer model end with finite losses",
    "spec-moves": "weights move",
    "spec-resumes": "resumed from the checkpoint of step 1 it comes to the same step 2, bit for bit",
}
"""Name of a rule -> what it requires. Each has a heading on the page."""

WAIVABLE = ("loss-gradient", "loss-sign", "loss-reference", "loss-penalty", "loss-ratio", "kl-stable", "kl-reward")
"""Rules that a published method may break on purpose. The framework itself relies on the others."""


class ContractError(AssertionError):
    """A component or spec breaks a rule; says which one, what was found, what is required and where it is explained.

    Args:
        who: The component or spec.
        rule: Name of the rule, one of `RULES`.
        found: What was found.
    """

    def __init__(self, who: str, rule: str, found: str) -> None:
        end = "" if found.endswith(("?", ".")) else "."
        super().__init__(
            f"{who} breaks `{rule}`: {found}{end} Required: {RULES[rule]}. "
            f"See {rule} on the page Extend, Testing of nashtune's documentation ({PAGE})"
        )
        self.who, self.rule, self.found = who, rule, found


class _Waivers:
    """Reasons by rule, and which of them were needed."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons, self.needed = dict(reasons), set[str]()


_WAIVERS: ContextVar[_Waivers | None] = ContextVar("waivers", default=None)


@contextmanager
def waiving(who: str, reasons: Mapping[str, str]) -> Iterator[None]:
    """Print what is found against some rules, with a reason, where it would be an error.

    Raises:
        InputError: a rule cannot be waived, has no reason, or was not broken.
    """
    for rule, reason in reasons.items():
        if rule not in WAIVABLE:
            guess = difflib.get_close_matches(rule, WAIVABLE, n=1)
            help_ = f"did you mean '{guess[0]}'?" if guess else f"these can: {', '.join(WAIVABLE)}"
            raise InputError(f"waive: the rule '{rule}' cannot be waived; {help_}")
        if not reason.strip():
            raise InputError(f"waive: the rule '{rule}' has no reason; say why {who} breaks it on purpose")
    waivers = _Waivers(reasons)
    before = _WAIVERS.set(waivers)
    try:
        yield
    finally:
        _WAIVERS.reset(before)
    unneeded = [rule for rule in reasons if rule not in waivers.needed]
    if unneeded:
        raise InputError(f"waive: {who} does not break {', '.join(unneeded)}; take the waiver out")


def require(holds: bool, who: str, rule: str, found: str) -> None:
    """Raise `ContractError` unless it holds, or the rule is waived."""
    if holds:
        return
    waivers = _WAIVERS.get()
    if waivers is None or rule not in waivers.reasons:
        raise ContractError(who, rule, found)
    if rule not in waivers.needed:
        note(f"{who} breaks `{rule}`: {found}. Waived: {waivers.reasons[rule]}")
    waivers.needed.add(rule)


@contextmanager
def running(who: str, doing: str, rule: str = "runs") -> Iterator[None]:
    """Turn whatever the component raises inside into a `ContractError` that says what it was doing."""
    try:
        yield
    except ContractError:
        raise
    except Exception as error:  # anybody's code may be behind it
        text = " ".join(str(error).split())
        raise ContractError(who, rule, f"{doing} raised {type(error).__name__}: {text}") from error

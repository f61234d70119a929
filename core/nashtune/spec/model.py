"""What a resolved spec is: plain, frozen data without weights and without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

    from nashtune.plugins.registry import Registered

NONE = "none"
"""How a spec says that a section is left out on purpose."""

SECTIONS: dict[str, str] = {
    "about": "What the method is: title, paper, equation, conventions.",
    "loss": "Maps log-probs to one value per pair or example.",
    "kl": "Gives beta, the strength of the KL penalty, and may move it; `none` where the loss has no beta.",
    "references": "Frozen distributions whose log-probs enter the loss, by the name the loss gives them; or `none`.",
    "oracle": "Judges completions; only for schedules that sample.",
    "sampler": "Draws completions; only for schedules that sample.",
    "pairing": "Turns scores into pairs; only for schedules that sample.",
    "schedule": "Rounds and phases; `offline` when absent.",
    "head": "Score head of a reward model; only for losses that read scores.",
    "optimizer": "Optimiser and learning-rate schedule.",
}
"""Section of a spec -> what it is for."""

COMPONENTS: dict[str, str] = {
    section: "reference" if section == "references" else section
    for section in SECTIONS
    if section not in ("about", "head", "optimizer")
}
"""Section of a spec -> the kind of component it names."""

ABOUT: dict[str, str] = {
    "title": "Title of the paper.",
    "paper": "Where it is, for example arXiv:2305.18290.",
    "kind": "offline, game, reward or rl.",
    "equation": "What is minimised, in plain text.",
    "conventions": "Sums or means of log-probs, what is detached, what one value belongs to.",
    "values": "Values of the loss that are known, such as log 2 at π = π_ref.",
    "reduces_to": "What other methods it is, or comes near to: a list of {method, exact, at, with, when}, or none.",
    "plugin": "Module that implements it.",
}
"""Key of the `about` section -> what it says."""

ABOUT_KINDS = ("offline", "game", "reward", "rl")


@dataclass(frozen=True)
class ComponentSpec:
    """A component by name, with every argument.

    Args:
        kind: One of the kinds of `nashtune.plugins`.
        name: What the spec calls it: a registered name or a class path.
        target: Its class, "package.module:Class".
        args: Constructor arguments, defaults filled in.
        origin: Which plugin registered it; None for a class path.
        where: Where the spec names it, for messages.
    """

    kind: str
    name: str
    target: str
    args: Mapping[str, Any] = field(default_factory=dict)
    origin: Registered | None = field(default=None, compare=False)
    where: str = field(default="", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The short form: `{"name": "dpo", "label_smoothing": 0.0}`."""
        return {"name": self.name, **self.args}


@dataclass(frozen=True)
class OptimizerSpec:
    """Optimiser and learning-rate schedule.

    Args:
        name: `adamw` (one fused kernel), `adamw_8bit` (moments in 8 bits, by the library bitsandbytes) or `rmsprop`.
        lr: Peak learning rate, > 0.
        weight_decay: Decoupled for adamw, L2 for rmsprop, >= 0.
        betas: Moment decay rates of adamw, each in [0, 1).
        rounding: How adamw rounds weights that are kept in bf16 (`policy.precision: bf16`): to the `nearest`, where
            small updates are lost, or `stochastic`, up or down by chance so that the mean is exact.
        warmup: Linear warm-up: below 1 a share of the run's optimiser steps, from 1 on a number of steps.
        decay: After the warm-up: `constant`, or to 0 at the end of the run, `linear` or `cosine`.
    """

    name: Literal["adamw", "adamw_8bit", "rmsprop"] = "adamw"
    lr: PositiveFloat = 5e-7
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[NonNegativeFloat, NonNegativeFloat] = (0.9, 0.999)
    rounding: Literal["nearest", "stochastic"] = "nearest"
    warmup: NonNegativeFloat = 0.1
    decay: Literal["constant", "linear", "cosine"] = "constant"

    def warmup_steps(self, total: int) -> int:
        """Optimiser steps of the warm-up in a run of `total` steps."""
        return math.ceil(self.warmup * total) if self.warmup < 1 else int(self.warmup)

    def warmup_note(self, total: int) -> str | None:
        """What to say where the warm-up is longer than the run, so that the peak learning rate is never reached."""
        steps = self.warmup_steps(total)
        if steps < total or not steps:
            return None
        return (
            f"warm-up of {steps} steps in a run of {total}: the learning rate never reaches its peak of {self.lr:g}, "
            "and little is learned; set --spec.optimizer.warmup 0.1 (a share of the run) for short runs"
        )

    def to_dict(self) -> dict[str, Any]:
        """Its fields as plain data, without those that this optimiser does not read."""
        unread = {"adamw": (), "adamw_8bit": ("rounding",), "rmsprop": ("betas", "rounding")}[self.name]
        values = {**vars(self), "betas": list(self.betas)}
        return {key: value for key, value in values.items() if key not in unread}


@dataclass(frozen=True)
class HeadSpec:
    """The score head of a reward model: one linear layer on the hidden state of the last token, without bias.

    Args:
        members: Outputs, each a member of an ensemble on one trunk; the loss is the mean of theirs. >= 1.
        init: Of a new head. `scaled`: normal with standard deviation 1/sqrt(d + 1) for hidden size d (learning to
            summarise); `config`: the model's own `initializer_range`. Each member has a seed of its own.
        trunk: `trained` with the head, or `frozen`, so that the head alone learns.
        own_order: Whether each member reads the rows in an order of its own. Takes an even number of epochs: over two
            of them every member reads every row once.
        normalise: What is stored with the trained model, measured on answers of the training rows: `bias` makes each
            member's mean 0, `gain_bias` its standard deviation 1 as well.
        member: With members: 1, which output of the starting model's head to go on with, where it has several, from 0.
    """

    members: PositiveInt = 1
    init: Literal["scaled", "config"] = "scaled"
    trunk: Literal["trained", "frozen"] = "trained"
    own_order: bool = False
    normalise: Literal["none", "bias", "gain_bias"] = "none"
    member: NonNegativeInt | None = None

    def to_dict(self) -> dict[str, Any]:
        """Its fields as plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Spec:
    """One alignment method, resolved: every name known, every argument checked, every default filled in.

    Args:
        name: Of the spec file, without its ending.
        about: Title, paper, equation and conventions, as text; `reduces_to` may be a list (`spec.reductions`).
        loss: The loss.
        kl: The KL controller, where the loss has a beta.
        references: References by the name the loss gives them.
        oracle: The judge of sampled completions.
        sampler: What draws completions.
        pairing: What turns scores into pairs.
        schedule: Rounds and phases.
        head: Score head, where the loss reads scores.
        optimizer: Optimiser and learning-rate schedule.
        places: Where each value was given ("dpo.yaml:7", "--spec.kl.beta"), by key path; defaults are absent.
        file: The spec's file; "" when it came as data.
    """

    name: str
    about: Mapping[str, Any]
    loss: ComponentSpec
    kl: ComponentSpec | None
    references: Mapping[str, ComponentSpec]
    oracle: ComponentSpec | None
    sampler: ComponentSpec | None
    pairing: ComponentSpec | None
    schedule: ComponentSpec
    head: HeadSpec | None = None
    optimizer: OptimizerSpec = OptimizerSpec()
    places: Mapping[tuple[str, ...], str] = field(default_factory=dict, compare=False, repr=False)
    file: str = field(default="", compare=False)

    def components(self) -> Iterator[tuple[tuple[str, ...], ComponentSpec]]:
        """(key path, component) of each component, in the order of the sections."""
        for section in COMPONENTS:
            value = getattr(self, section)
            if section == "references":
                yield from (((section, name), component) for name, component in value.items())
            elif value is not None:
                yield (section,), value

    def to_dict(self) -> dict[str, Any]:
        """The whole spec as plain data in short form; resolving it again gives an equal spec."""
        short: dict[str, Any] = {"name": self.name, **({"about": dict(self.about)} if self.about else {})}
        for section in COMPONENTS:
            value = getattr(self, section)
            if section == "references":
                short[section] = {name: component.to_dict() for name, component in value.items()} or NONE
            else:
                short[section] = value.to_dict() if value is not None else NONE
        head = {"head": self.head.to_dict()} if self.head is not None else {}
        return {**short, **head, "optimizer": self.optimizer.to_dict()}

"""One check for each kind of component, and the one that finds out which kind it is. Torch is imported when one runs.

`check_NAME(component, **options)` takes what `components_of` lists, or a class. Options of the constructor come from
the specs that use the component, else from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from nashtune.errors import InputError
from nashtune.plugins import Registered
from nashtune.testing.contract import waiving
from nashtune.testing.subject import Subject, subject_of

Component = Registered | type

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("losses", ("statistics",)),
    "kl": ("kl", ()),
    "oracle": ("oracles", ("texts",)),
    "sampler": ("samplers", ("prompts",)),
    "pairing": ("pairings", ()),
    "schedule": ("schedules", ()),
    "reference": ("references", ()),
    "stage": ("stages", ()),
}
"""Kind -> module of its check, and what that takes besides options of the constructor."""


class Check(Protocol):
    """Checks a component of one kind."""

    def __call__(self, component: Component, *, waive: Mapping[str, str] | None = None, **options: Any) -> None:
        """Check a component; see `check_component`."""


def check_component(component: Component, *, waive: Mapping[str, str] | None = None, **options: Any) -> None:
    """Check any component by the rules of its kind.

    Args:
        component: What `components_of` lists, or a class that can be imported by its name.
        waive: Reasons by rule: what is found against it is printed with the reason and is no error. Of
            `nashtune.testing.contract.WAIVABLE` alone.
        options: Of its constructor; for losses also `statistics`, names of those that their KL controller gives; for
            oracles also `texts`, completions to judge, at least three; for samplers also `prompts`, token ids of four
            prompts of `tiny_model`.

    Raises:
        ContractError: it breaks a rule.
        InputError: it cannot be imported, or is no component; a waiver is unknown or was not needed.
    """
    _check(subject_of(component), waive, options)


def _check(subject: Subject, waive: Mapping[str, str] | None, options: dict[str, Any]) -> None:
    name, further = KINDS[subject.kind]
    check = import_module(f"nashtune.testing.{name}").check
    given = [options.pop(one, None) for one in further]
    with waiving(subject.who, waive or {}):
        check(subject, options, *given)


def _of_kind(kind: str, name: str, what: str) -> Check:
    def check(component: Component, *, waive: Mapping[str, str] | None = None, **options: Any) -> None:
        subject = subject_of(component)
        if subject.kind != kind:
            raise InputError(f"{subject.who} is no {kind}; use check_component")
        _check(subject, waive, options)

    check.__name__ = check.__qualname__ = name
    check.__doc__ = f"Check {what}; see `check_component`."
    return check


check_loss = _of_kind("loss", "check_loss", "a loss on random batches: shapes, gradient, independence of rows, signs")
check_kl_controller = _of_kind("kl", "check_kl_controller", "a KL controller: bounds, direction, stability, resume")
check_oracle = _of_kind("oracle", "check_oracle", "an oracle: antisymmetry, independence of batches, variances")
check_sampler = _of_kind("sampler", "check_sampler", "a sampler on a tiny model: seeds, batch-mates, ends, log-probs")
check_pairing = _of_kind("pairing", "check_pairing", "a pairing with up to 9 completions, and answers of all kinds")
check_schedule = _of_kind("schedule", "check_schedule", "a schedule: its phases, and its first rounds on a small game")
check_reference = _of_kind("reference", "check_reference", "a reference on a tiny model: no gradient, frozen")
check_stage = _of_kind("stage", "check_stage", "what a stage declares, and that looking at it imports no torch")

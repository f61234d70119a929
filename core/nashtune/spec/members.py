"""The folders that an oracle reads, looked at without torch: whether they are there, and how many members they hold."""

from __future__ import annotations

from pathlib import Path

from nashtune.errors import InputError
from nashtune.models.locate import locate, model_in, resolve_export
from nashtune.spec.gamerules import attribute
from nashtune.spec.model import ComponentSpec, Spec
from nashtune.spec.settings import where_and_what

ENSEMBLE = "nashtune.oracles.reward_ensemble:RewardEnsembleOracle"
FOLDERS = (
    ENSEMBLE,
    "nashtune.oracles.reward_model:RewardModelOracle",
    "nashtune.oracles.preference_model:PreferenceModelOracle",
)
"""Oracles whose `path` (of an ensemble also `paths`) is the folder of a model."""
ELSEWHERE = ("demo:", "hub:", "@")  # made ready, downloaded, or written by an earlier stage of a pipeline


def check_folders(spec: Spec, *, elsewhere: bool = False) -> None:
    """Whether the oracle's folders are there, and hold as many members as a variance takes.

    Args:
        spec: A game, or not.
        elsewhere: Whether folders that the run makes ready are there by now.

    Raises:
        InputError: a folder is missing, or there are too few members.
    """
    oracle = spec.oracle
    if oracle is None or oracle.target not in FOLDERS:
        return
    named = "paths" if oracle.args.get("paths") else "path"
    given = oracle.args.get(named)
    folders: list[str] = given if isinstance(given, list) else [given] if given is not None else []
    if not folders or (not elsewhere and any(one.startswith(ELSEWHERE) for one in folders)):
        return
    option = where_and_what(spec.places.get(("oracle", named), oracle.where or "spec"), f"oracle.{named}")
    roots = [resolve_export(one, option) for one in folders]
    if oracle.target == ENSEMBLE and (who := _reader(spec)) is not None:
        count = len(roots) if named == "paths" else count_members(roots[0], option)
        _refuse_few(count, oracle, who, f"{option}: {', '.join(folders)}")


def count_members(root: Path, option: str) -> int | None:
    """Outputs of the reward model in a folder, or its member folders; None where it is no reward model.

    Args:
        root: The folder.
        option: Where the user named it.

    Raises:
        InputError: a file in it cannot be read, or the model has lost its head.
    """
    from nashtune.models.reward_folder import head_width, read_reward_file

    if model_in(root) != root:
        # other folders are no members; the oracle, which wants none beside them, names them in its own words
        return sum(not entry.name.startswith(".") and model_in(entry) is not None for entry in root.iterdir())
    card = read_reward_file(root, option)
    return card.members if card is not None else head_width(locate(str(root), option), option)


def _reader(spec: Spec) -> ComponentSpec | None:
    """Who reads the variance of the rewards."""
    parts = (spec.kl, spec.loss)
    return next((part for part in parts if part is not None and attribute(part, "uses_variance", False)), None)


def _refuse_few(count: int | None, oracle: ComponentSpec, who: ComponentSpec, named: str) -> None:
    estimate = oracle.args.get("estimate")
    least, why = (
        (2, "") if estimate is None else (3, f" (oracle.estimate: {estimate} takes one of them for the reward)")
    )
    if count is None or not 0 < count < least:  # what holds no member at all is refused by the oracle, in its own words
        return
    raise InputError(
        f"{named}: {count} member{'s' if count > 1 else ''}, and {who.kind} '{who.name}' reads the variance of the "
        f"rewards, which takes at least {least}{why}; give an ensemble of more members, or use another kl, such as "
        "{name: fixed, beta: 0.1}"
    )

"""The contract of a spec: it resolves, its vectors pass, and a tiny model trains by it and goes on where it was."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.errors import CheckFailed, InputError
from nashtune.evaluation.vector_place import vectors_of
from nashtune.spec.gamerules import attribute, is_game
from nashtune.spec.resolve import build, resolve
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.rows import write_run

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.spec.model import Spec

GRADIENTS = ("grad_policy", "grad_score")
STEPS = 2
LEAST = 1e-7
ORACLE = "--spec.oracle"
RULES_ORACLE = (ORACLE, "rules", "--spec.oracle.rules", "['regex:[a-zA-Z]']")
"""An oracle that prefers letters: it judges what a random model writes."""


def check_spec(name: str, folder: str | Path, *settings: str) -> None:
    """Check a spec: it resolves, its vectors pass, and a two-layer model trains two steps by it and resumes.

    Rows, run file and runs are left in the folder. A spec that leaves its oracle to the run gets one of rules, and one
    that reads an ensemble three random heads.

    Args:
        name: Of the spec, or its file.
        folder: An empty folder, such as pytest's `tmp_path`.
        settings: Further words of the command line, such as `"--spec.oracle.path", "folder"`: what it cannot do
            without.

    Raises:
        ContractError: it breaks a rule.
    """
    spec = _resolves(name)
    who = f"spec '{spec.name}'"
    check_vectors(spec, who)
    _trains(name, spec, Path(folder), settings, who)


def _resolves(name: str) -> Spec:
    who = f"spec '{name}'"
    with running(who, "resolve", "spec-resolves"):
        spec = resolve(name)
        again = resolve(spec.to_dict())
    require(again == spec, who, "spec-resolves", "its plain form resolves to another spec")
    for place, component in spec.components():
        with running(who, f"building {'.'.join(place)} '{component.name}'", "spec-resolves"):
            build(component)
    return spec


def check_vectors(spec: Spec, who: str) -> None:
    """Run the vectors beside a spec, or those of its base where it has none and the loss is the base's.

    Raises:
        ContractError: there are none, a case expects no gradient, or one fails.
    """
    from nashtune.evaluation.vector_files import load_cases
    from nashtune.evaluation.vectors import compare, evaluate

    try:
        place = vectors_of(spec)
    except InputError as error:
        raise ContractError(who, "spec-vectors", str(error)) from error
    with running(who, str(place.file), "spec-vectors"):
        for number, case in enumerate(load_cases(place.file)):
            where = f"case {number + 1}" + (f" ({case['name']})" if "name" in case else "")
            slopes = [key for key in case.get("expected", {}) if key.startswith(GRADIENTS)]
            require(bool(slopes), who, "spec-vectors", f"{where} expects no gradient ({', '.join(GRADIENTS)}_...)")
            difference = compare(evaluate(place.spec, case, where), case, where)
            assert difference is not None, "a case with `expected`"
            said = f"{where}: off by {difference.size:.3e}, allowed {difference.tolerance:.0e}: {difference.at}"
            require(difference.passed, who, "spec-vectors", said)


def _trains(name: str, spec: Spec, folder: Path, settings: Sequence[str], who: str) -> None:
    from nashtune.testing.policies import own_cache, tiny_folder

    folder.mkdir(parents=True, exist_ok=True)
    config, run = write_run(folder, tiny_folder()), folder / "run"
    with own_cache(folder / "cache"):
        words = [*_game(spec, settings), *settings]
        try:
            _fit(["--spec", name, "--config", str(config), "--run_dir", str(run), *words], who, "training two steps")
        except ContractError as error:
            if said := _too_few(run):
                raise ContractError(who, "spec-trains", said) from error
            raise
        first, second = (_weights(run, step, who) for step in (1, 2))
        _finite(run, who)
        moved = any(_moved(first[key], weight) for key, weight in second.items())
        require(moved, who, "spec-moves", f"none of {len(second)} weights changed in the second step")
        resume = str(run / "checkpoints" / "step=1.ckpt")
        _fit(["--ckpt_path", resume, "--run_dir", str(run)], who, "going on from step 1", "spec-resumes")
        again = _weights(run, 2, who)
    unequal = [key for key, weight in second.items() if not weight.equal(again[key])]
    said = f"{len(unequal)} of {len(second)} weights differ, such as {unequal[:1]}"
    require(not unequal, who, "spec-resumes", f"resumed from the checkpoint of step 1, {said}")


def _fit(words: Sequence[str], who: str, doing: str, rule: str = "spec-trains") -> None:
    """`nashtune fit` in this process, which has its model and libraries at hand."""
    fit = import_module("nashtune.cli.lightning").run
    try:
        fit("fit", list(words))
    except (InputError, CheckFailed) as error:
        raise ContractError(who, rule, f"{doing}: {error}") from error


def _game(spec: Spec, settings: Sequence[str]) -> list[str]:
    """Settings of a game: short completions, and an oracle for any, unless the caller names one."""
    if not is_game(spec):
        return []
    found = ["--spec.sampler.max_new_tokens", "5", "--spec.sampler.completions", "4", "--data.prompts_per_round", "6"]
    found += ["--trainer.accumulate_grad_batches", "6", "--trainer.max_epochs", "1"]
    if spec.oracle is None or any(word.partition("=")[0] == ORACLE for word in settings):
        return found
    if attribute(spec.oracle, "chosen_by_run", False):
        return [*found, *RULES_ORACLE]
    if spec.oracle.name == "reward_ensemble" and not spec.oracle.args.get("path") and not spec.oracle.args.get("paths"):
        from nashtune.testing.policies import tiny_heads

        found += ["--spec.oracle.path", str(tiny_heads()), "--spec.oracle.members", "3"]
    return found


def _weights(run: Path, step: int, who: str) -> Mapping[str, Any]:
    import torch

    path = run / "checkpoints" / f"step={step}.ckpt"
    there = sorted(one.name for one in path.parent.glob("*")) if path.parent.is_dir() else []
    said = _too_few(run) or f"there is no checkpoint of step {step}, only {there}"
    require(path.exists(), who, "spec-trains", said)
    found: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return found


def _too_few(run: Path) -> str:
    """What the oracle's answers came to, where the two steps lacked pairs; "" where that was not it."""
    file = run / "report.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    rounds = [one for one in report.get("rounds") or () if "judgements" in one]
    if not rounds or report["steps"] >= STEPS:
        return ""
    dropped: Counter[str] = Counter()
    for one in rounds:
        dropped.update(one["dropped"])
    asked, pairs = (sum(one[name] for one in rounds) for name in ("judgements", "pairs"))
    made = f"{pairs} pairs, too few for {STEPS} steps" if pairs else "no pair"
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(dropped.items()))
    return (
        f"the oracle's {asked} comparisons made {made}{f' ({reasons})' if reasons else ''}. The answers are a few "
        "random words; if the oracle cannot tell them apart, have the spec checked with one that can: "
        f"check_spec(name, folder, {', '.join(map(repr, RULES_ORACLE))})"
    )


def _moved(before: Tensor, after: Tensor) -> bool:
    """Whether a weight has changed by more than a float32 of its size can show."""
    return float((after - before).abs().max()) > LEAST * float(before.abs().max())


def _finite(run: Path, who: str) -> None:
    from nashtune.evaluation.report import read_metrics

    losses = read_metrics(run).series.get("train/loss", [])
    good = len(losses) == STEPS and all(math.isfinite(value) for _, value in losses)
    require(good, who, "spec-trains", f"the losses of the two steps are {losses}")

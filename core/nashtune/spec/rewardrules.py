"""What rewards and policy gradients ask of a spec's parts; read from literal class attributes, nothing is imported."""

from __future__ import annotations

from nashtune.plugins.static import class_info
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, chosen, having, is_game, scores, such
from nashtune.spec.model import ComponentSpec, Spec


def check_rewards(spec: Spec, found: Collector) -> None:
    """Note a variance that nothing gives, rewards that the oracle does not know, and rollouts that cannot be used."""
    rows = attribute(spec.loss, "rows", "pairs")
    for part in (spec.kl, spec.loss):
        if part is not None and attribute(part, "uses_variance", False):
            _check_variance(spec, part, found)
    if spec.kl is not None:
        _check_kl(spec, spec.kl, rows, found)
    if attribute(spec.schedule, "scores", False):
        _check_scores(spec, rows, found)
    if spec.sampler is not None and rows == "rollouts" and is_game(spec):
        _check_rollouts(spec, spec.sampler, found)


def _check_variance(spec: Spec, part: ComponentSpec, found: Collector) -> None:
    oracle, who = spec.oracle, f"{part.kind} '{part.name}'"
    replayed = oracle is None and spec.sampler is not None and attribute(spec.sampler, "replays", False)
    if not is_game(spec):
        found.add(
            f"{part.where}: {who} reads the variance of rewards, and the schedule '{spec.schedule.name}' draws no "
            "completions that an oracle could reward; use schedule: on_policy or online, or another kl"
        )
    elif replayed:
        return  # the variances were recorded, too
    elif oracle is None or (chosen(oracle) and not attribute(oracle, "gives_variance", False)):
        named = f"the oracle '{oracle.name}' knows none" if oracle is not None else "there is no oracle"
        found.add(
            f"{(oracle or part).where}: {who} reads the variance of the rewards, and {named}; use an oracle that "
            f"gives it ({having('oracle', 'gives_variance')}), or another kl, such as {{name: fixed, beta: 0.1}}"
        )
    elif attribute(oracle, "counts_groups", False):
        _check_completions(spec, 2, f"the oracle '{oracle.name}' compares the completions of a prompt", found)


def _check_kl(spec: Spec, kl: ComponentSpec, rows: str, found: Collector) -> None:
    if attribute(kl, "beta_per_side", False) and rows == "pairs" and not attribute(spec.loss, "beta_per_side", False):
        found.add(
            f"{spec.loss.where}: kl '{kl.name}' gives chosen and rejected a beta each, and the loss "
            f"'{spec.loss.name}' takes one for both; use one that takes two ({having('loss', 'beta_per_side')})"
        )


def _check_scores(spec: Spec, rows: str, found: Collector) -> None:
    """A schedule that scores completions one by one needs an oracle that can, and a loss for it."""
    if rows != "rollouts":
        found.add(
            f"{spec.loss.where}: the schedule '{spec.schedule.name}' has completions rewarded one by one, and the loss "
            f"'{spec.loss.name}' trains on {rows}; use a policy gradient, or schedule: online"
        )
    oracle = spec.oracle
    if oracle is not None and not scores(class_info(oracle.target)):
        how = f"compares pairs; use one that scores ({such('oracle', scores)})"
        if not chosen(oracle):
            how = "stands for one that compares pairs; write `oracle: reward`, or name one that scores"
        found.add(
            f"{oracle.where}: the schedule '{spec.schedule.name}' has completions rewarded one by one, and the oracle "
            f"'{oracle.name}' {how}"
        )


def _check_rollouts(spec: Spec, sampler: ComponentSpec, found: Collector) -> None:
    least = attribute(spec.loss, "min_completions", 1)
    if least > 1:
        who = f"the loss '{spec.loss.name}' compares each completion with the others of its prompt"
        _check_completions(spec, least, who, found)
    if not attribute(spec.schedule, "scores", False):
        return
    why = f"and the gradient of the loss '{spec.loss.name}' is that of completions of the policy itself"
    for name in ("temperature", "top_p"):
        value = sampler.args.get(name, 1.0)
        if value != 1.0:
            found.add(
                f"{spec.places.get(('sampler', name), sampler.where)}: sampler.{name}: {value:g} draws from another "
                f"distribution than the policy, {why}; use 1.0"
            )
    for name, what in (("selects", "chooses among completions"), ("mixes", "draws from a mixture")):
        if attribute(sampler, name, False):
            found.add(f"{sampler.where}: the sampler '{sampler.name}' {what}, {why}; use policy, or vllm")


def _check_completions(spec: Spec, least: int, who: str, found: Collector) -> None:
    sampler = spec.sampler
    if sampler is None:
        return
    count = sampler.args.get("completions", 1)
    if isinstance(count, int) and count < least:
        found.add(
            f"{spec.places.get(('sampler', 'completions'), sampler.where)}: sampler.completions: {count}; {who}; give "
            f"at least {least}"
        )

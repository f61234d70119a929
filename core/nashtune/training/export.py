"""Export: the trained policy as a Hugging Face folder with a card that says what was trained, on what, and how."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from nashtune import __version__
from nashtune.errors import InputError
from nashtune.interfaces.loss import Loss
from nashtune.models.locate import EXPORT, locate
from nashtune.models.normaliser import Normaliser
from nashtune.models.policy import HFPolicy, PolicyConfig
from nashtune.models.preference_file import PreferenceFile
from nashtune.models.reward_policy import RewardPolicy
from nashtune.models.sizes import context_length
from nashtune.sharding.files import is_sharded_checkpoint
from nashtune.spec.resolve import build, resolve
from nashtune.training.checkpoint import SECTION, newest_checkpoint, read_checkpoint
from nashtune.training.reward_card import measured_section, preference_section, reward_section


def export_policy(
    policy: HFPolicy, out: Path, card: str, *, merged: bool = False, asked: PreferenceFile | None = None
) -> None:
    """Save a loaded policy: complete or not at all.

    Args:
        policy: Loaded policy.
        out: Folder to make; it must not hold anything.
        card: Text of the model card.
        merged: For a LoRA policy, add the adapter into the weights instead of saving it alone.
        asked: Of a preference model, how it was asked; see `asked_as`.

    Raises:
        InputError: `out` holds something, or `merged` was asked for full weights.
    """
    refuse_used(out)
    if merged and policy.adapter == "none":
        raise InputError("--merged: this run trained full weights, there is no adapter to merge; leave --merged out")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        policy.save_pretrained(partial, merged=merged)
        (partial / "README.md").write_text(card, encoding="utf-8")
        if asked is not None:
            asked.write(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_used(out: Path, *, ends: bool = True) -> None:
    """Raise `InputError` if a folder to be written holds something.

    Args:
        out: The folder.
        ends: Whether nothing else replaces it; False for that of a run which writes its own there when it ends.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        later = "" if ends else " (it is of an earlier export, and the run puts its own there when it ends)"
        raise InputError(
            f"{out} is not empty and is not overwritten{later}: use what it holds, or choose another folder with --out"
        )


def export_run(run: Path, out: Path | None, *, merged: bool) -> Path:
    """Export the newest checkpoint of a run folder, or one checkpoint file.

    Returns:
        The folder written.
    """
    checkpoint = newest_checkpoint(run) if run.is_dir() and not is_sharded_checkpoint(run) else run
    content = read_checkpoint(checkpoint, "RUN")
    config = content[SECTION]["config"]
    folder = checkpoint.parent.parent
    file = folder / "report.json"
    own = out is None and not merged
    out = out or folder / (f"{EXPORT}-merged" if merged else EXPORT)
    refuse_used(out, ends=file.exists() or not own)
    head = resolve(config["spec"]).head
    chosen = PolicyConfig.from_plain(config["policy"])
    policy = HFPolicy(chosen) if head is None else RewardPolicy(chosen, head)
    report = _report(file)
    if isinstance(policy, RewardPolicy):
        _recall(policy, config, checkpoint, content["global_step"], report)
    policy.load()
    policy.load_trainable_state_dict(without_critic(content["state_dict"]))
    if report.get("steps") != content["global_step"]:  # of other weights: what was measured is not of these
        report = {"steps": content["global_step"], "data": report.get("data", {})}
    export_policy(policy, out, model_card(config, report, merged=merged), merged=merged, asked=asked_as(config))
    return out


def _report(file: Path) -> dict[str, Any]:
    """What the run says of itself; nothing where it did not end."""
    try:
        report: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{file} is torn or was altered; restore it from a copy, or move it away: the model card is then without "
            "what was measured"
        ) from error
    return report


def _recall(
    policy: RewardPolicy, config: Mapping[str, Any], checkpoint: Path, step: int, report: Mapping[str, Any]
) -> None:
    """What stands beside the weights: from the run's config, and what its report says was measured at its end."""
    policy.template, policy.max_length = config["data"]["template"], _longest(config)
    kind = policy.head.normalise
    if kind == "none":
        return
    if report.get("steps") != step or "normaliser" not in report:
        raise InputError(
            f"{checkpoint}: of step {step}, but the gain and bias of head.normalise: {kind} are measured over training "
            "rows when training ends. Go on to the end (where a run's end failed, this does it again): nashtune fit "
            f"--ckpt_path last --run_dir {checkpoint.parent.parent}"
        )
    policy.normaliser = Normaliser(**report["normaliser"])


def asked_as(config: Mapping[str, Any]) -> PreferenceFile | None:
    """How a run's preference model was asked; None where the run trains something else.

    Args:
        config: The run's.
    """
    if cast(Loss, build(resolve(config["spec"]).loss)).rows != "comparisons":
        return None
    return PreferenceFile(template=config["data"]["template"], max_length=_longest(config))


def _longest(config: Mapping[str, Any]) -> int:
    """Tokens that a text of the data may have, as `Limits.whole`."""
    context, limit = context_length(locate(config["policy"]["path"])), int(config["data"]["max_length"])
    return limit if context is None else min(limit, context)


def without_critic(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds of the model that is exported."""
    return {name: weight for name, weight in state.items() if not name.startswith("critic.")}


def saved_as_adapter(config: Mapping[str, Any]) -> bool:
    """Whether a run's model is an adapter alone; a fresh one on another that was merged in memory is not."""
    return (config["policy"].get("lora") is not None) != locate(config["policy"]["path"]).is_adapter


def model_card(config: Mapping[str, Any], report: Mapping[str, Any], *, merged: bool = False) -> str:
    """Markdown with the metadata block that model hubs read.

    Args:
        config: The run's.
        report: Of the run when it had these weights; without what was measured where it did not end with them.
        merged: Whether an adapter was merged into the weights.
    """
    spec = resolve(config["spec"])
    metadata: dict[str, Any] = {"library_name": "transformers", "base_model": config["policy"]["path"]}
    about = ""
    if spec.head is not None:
        metadata["pipeline_tag"] = "text-classification"
        about = reward_section(spec.head, config, adapter=saved_as_adapter(config) and not merged)
    if (asked := asked_as(config)) is not None:
        about = preference_section(asked)
    if "verdicts" in report:
        about += measured_section(report["verdicts"])
    metadata["tags"] = ["nashtune", spec.name, *(["reward-model"] if spec.head is not None else [])]
    held_out = report.get("held_out", {})
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(held_out.items())) or "| not measured | |"
    data = "\n".join(
        f"- {split}: `{config['data'].get(split)}`, sha256 of the token ids `{facts['fingerprint']}`"
        for split, facts in report.get("data", {}).items()
    )
    return f"""---
{yaml.safe_dump(metadata, sort_keys=False).strip()}
---

# {spec.name}: {spec.about.get("title", "")}

Trained with nashtune {__version__} from `{config["policy"]["path"]}`.

- Optimiser steps: {report.get("steps", "not recorded")}
- Paper: {spec.about.get("paper", "none given")}
- Equation: `{" ".join(str(spec.about.get("equation", "none given")).split())}`
- Conventions: {" ".join(str(spec.about.get("conventions", "none given")).split())}
{about}
## Data

{data or "- not recorded"}

## Held-out metrics

| metric | value |
|---|---|
{figures}

## Command

    nashtune fit --config config.yaml --run_dir NEW_FOLDER

with this `config.yaml`:

```yaml
{yaml.safe_dump({k: v for k, v in config.items() if k != "run_dir"}, sort_keys=False, allow_unicode=True).strip()}
```
"""

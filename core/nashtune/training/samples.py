"""Answers of the policy to held-out prompts before and after training, and the KL divergence they show.

Legend: S = sampled completions.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer

from nashtune.data.collate import completion_batch
from nashtune.errors import InputError
from nashtune.interfaces import Surroundings
from nashtune.kl.estimators import sampled_kl
from nashtune.notes import note
from nashtune.ranks import everyone, together
from nashtune.samplers.policy import PolicySampler
from nashtune.sharding.tensors import local
from nashtune.spec.optimizerrules import MOMENTS
from nashtune.training.run_folder import write_json

if TYPE_CHECKING:
    from nashtune.interfaces import Loss
    from nashtune.training.module import AlignmentModule


@dataclass(kw_only=True)
class SampleSettings:
    """Which answers a run samples; they never enter training.

    Args:
        prompts: Held-out prompts answered before and after training, 0 for none; KL(pi || ref) is estimated on the
            answers after.
        show: How many of them are printed at the end.
        max_new_tokens: Longest answer, in tokens.
        temperature: Sampling temperature; the KL estimate is given only at 1.0, where answers are drawn from the
            policy.
    """

    prompts: NonNegativeInt = 8
    show: NonNegativeInt = 2
    max_new_tokens: PositiveInt = 48
    temperature: NonNegativeFloat = 1.0


def answers_prompts(loss: Loss) -> bool:
    """Whether what a loss trains answers prompts; a score head and a model that names the better answer do not."""
    return loss.reads == "logprobs" and loss.rows != "comparisons"


class Samples(Callback):
    """Samples when training starts and when it ends, with the same noise.

    Args:
        folder: Run folder; `samples.json` is kept there, so that a resumed run still knows the answers before.
        settings: How many and how long.
        seed: Of the noise.
    """

    def __init__(self, folder: Path, settings: SampleSettings, seed: int) -> None:
        self._path = folder / "samples.json"
        self.settings = settings
        self._seed = seed
        self.kl: dict[str, float] | None = None
        self.answers = _answers(self._path)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answers of the starting weights; a resumed run has them on disk."""
        module = cast("AlignmentModule", pl_module)
        prompts = self._prompts(module)
        if not prompts or everyone(bool(self.answers))[0] or trainer.global_step > 0:
            return  # by what rank 0 has: sampling may need all of them
        coming = MOMENTS[module.spec.optimizer.name] * sum(local(w).numel() for w in module.policy.trained().values())
        with module.policy.inference_model(later=coming):  # so that there is room at the end, too
            texts, _ = self._sample(module, [ids for _, ids in prompts])
        self.answers = [{"prompt": prompt, "before": text} for (prompt, _), text in zip(prompts, texts, strict=True)]
        if trainer.is_global_zero:
            write_json(self._path, self.answers)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answers of the trained weights, and the KL divergence to `ref` where it gives log-probs of new text."""
        module = cast("AlignmentModule", pl_module)
        prompts = self._prompts(module)
        if not prompts:
            return
        with ExitStack() as copy:
            try:
                copy.enter_context(module.policy.inference_model())
            except InputError as error:  # on all ranks; the run is over, and what it has trained is to be kept
                note(f"no answers of the trained weights: {error}")
                return
            texts, sequences = self._sample(module, [ids for _, ids in prompts])
        before = {answer["prompt"]: answer["before"] for answer in self.answers if "before" in answer}
        self.answers = [
            {"prompt": prompt, **({"before": before[prompt]} if prompt in before else {}), "after": text}
            for (prompt, _), text in zip(prompts, texts, strict=True)
        ]
        if trainer.is_global_zero:
            write_json(self._path, self.answers)
        reference = module.references.get("ref")
        if reference is None or not reference.gives_logits or self.settings.temperature != 1.0:
            return
        batch = completion_batch(sequences).to(module.device)
        with torch.no_grad():
            policy_S = module.policy.logprobs(batch, module.engine).sums
            ref_S = reference.logprobs(batch, module.engine).sums
        k1, k3 = sampled_kl(policy_S, ref_S)
        self.kl = {"k1": k1, "k3": k3, "completions": float(len(sequences))}

    def _prompts(self, module: AlignmentModule) -> list[tuple[str, list[int]]]:
        """None for what does not answer any."""
        return module.data.sample_prompts(self.settings.prompts) if answers_prompts(module.loss) else []

    def _sample(
        self, module: AlignmentModule, prompts: list[list[int]]
    ) -> tuple[list[str], list[tuple[list[int], list[int]]]]:
        tokenizer: Any = module.data.tokenizer
        sampler = PolicySampler(max_new_tokens=self.settings.max_new_tokens, temperature=self.settings.temperature)
        with together("samples"):
            sampler.attach(Surroundings(policy=module.policy, tokenizer=tokenizer))
            drawn = sampler.sample(prompts, 1, seed=self._seed)
            texts = [tokenizer.decode(c.token_ids, skip_special_tokens=True).strip() for c in drawn]
        return texts, [(prompts[c.prompt], list(c.token_ids)) for c in drawn]


def _answers(path: Path) -> list[dict[str, str]]:
    """Those of an earlier attempt."""
    if not path.exists():
        return []
    try:
        return [dict(answer) for answer in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is torn or was altered; restore it from a copy, or move it away: the report is then without the "
            "answers before training"
        ) from error

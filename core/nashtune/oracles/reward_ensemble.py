"""Reward ensemble: K reward models as one reward that knows how much they disagree.

Legend: N = texts, K = members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from nashtune.data.texts import check_lengths, key_of
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt, RewardOracle, Rewards
from nashtune.oracles.aggregation import Rule, aggregate, moments, spread
from nashtune.oracles.ensemble_members import find_members
from nashtune.oracles.frozen import Device
from nashtune.oracles.reward_reader import RewardReader

PENALTY = {"uwo": 0.5, "lcb": 1.0}


class RewardEnsembleOracle(RewardOracle):
    """Scores completions with K reward models: their aggregate, their variance and each one's score.

    Coste et al., "Reward Model Ensembles Help Mitigate Overoptimization", arXiv:2310.02743; Zhang et al., "Improving
    RLHF with Efficient Reward Model Ensemble", arXiv:2401.16635; variance as in Banerjee and Gopalan, "Towards Reliable
    Alignment: Uncertainty-aware RLHF", arXiv:2410.23726.

    Args:
        path: Folder of a reward model with K outputs (heads on one trunk, one forward pass), or a folder with a folder
            for each member. One of `path` and `paths` is given, in the spec or by the run.
        paths: Folders of K reward models with one output each. LoRA adapters of one base model share it: it is in
            memory once, and its adapters are switched.
        members: How many members there have to be. Needed for a model with several outputs that nashtune did not
            train, whose outputs may be classes as well.
        aggregate: The reward that is trained on. mean; wco: the smallest; uwo: mean - penalty * variance; lcb: mean -
            penalty * standard deviation.
        penalty: lambda of uwo, beta of lcb. None: 0.5 for uwo (the paper's for best-of-n; its code's PPO example has
            0.1), 1 for lcb (ours; the paper gives no number).
        ddof: Of the variance in uwo and lcb: 0 (the paper's equation) or 1 (the paper's PPO code). The variance that
            goes to a KL controller always has 1.
        centre: `prompt`: each member's mean over the answers of a prompt is taken away before members are compared
            with one another, since Bradley-Terry training leaves it undetermined; `none`: scores as they are. The
            reward's own level stays that of the members' mean.
        estimate: Number of a member, from 0, that is the reward, the others giving the variance; with aggregate `mean`.
            None: all give both.
        template: As in `reward_model`, for all members.
        max_length: As in `reward_model`; None: the smallest of the members'.
        batch_tokens: Tokens of a forward pass, padding included.
        precision: Of the weights, fp32 or bf16.
        device: `auto` is a GPU where there is one.
    """

    gives_variance: ClassVar[bool] = True
    counts_groups: ClassVar[bool] = True
    placement: ClassVar[tuple[str, ...]] = ("batch_tokens", "device")
    model_argument: ClassVar[str | None] = "path"

    def __init__(
        self,
        *,
        path: str | None = None,
        paths: list[str] | None = None,
        members: PositiveInt | None = None,
        aggregate: Literal["mean", "wco", "uwo", "lcb"] = "mean",
        penalty: NonNegativeFloat | None = None,
        ddof: Literal[0, 1] = 0,
        centre: Literal["prompt", "none"] = "prompt",
        estimate: NonNegativeInt | None = None,
        template: Literal["chat", "plain", "pair"] | None = None,
        max_length: PositiveInt | None = None,
        batch_tokens: PositiveInt = 8192,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: Device = "auto",
    ) -> None:
        if penalty is not None and aggregate not in PENALTY:
            raise InputError(
                f"oracle.penalty: {penalty}, but the aggregate {aggregate} has none; allowed with uwo and lcb"
            )
        if estimate is not None and aggregate != "mean":
            raise InputError(
                f"oracle.estimate: {estimate}, but the aggregate {aggregate} is of all members; allowed with mean"
            )
        self.path, self.paths, self.number = path, paths, members
        self.rule: Rule = aggregate
        self.penalty = PENALTY.get(aggregate, 0.0) if penalty is None else penalty
        self.ddof, self.centre, self.estimate = ddof, centre, estimate
        self._reading: dict[str, Any] = {
            "template": template,
            "max_length": max_length,
            "batch_tokens": batch_tokens,
            "precision": precision,
            "device": device,
        }
        self._reader: RewardReader | None = None

    def prepare(self) -> None:
        """Looks at folders, heads, tokenizers, template and device; the first score loads the weights.

        Raises:
            InputError: one of them does not fit, or no folder was named.
        """
        self._reader = RewardReader(find_members(self.path, self.paths, self.number), **self._reading)
        self._check_estimate(self._reader.members)

    def counts(self) -> Mapping[str, int]:
        """Texts that were scored, and how many of them lost the beginning of their prompt, or of their answer too."""
        return dict(self._reader.counts) if self._reader is not None else {}

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        """Aggregate (N,), variance (N,; None for one member) and members' scores (N, K), float64.

        With `centre: prompt` an answer that is its prompt's only one in the call has variance 0.

        Raises:
            InputError: a model cannot be loaded, the template refuses a prompt, or a score is not finite.
        """
        if not check_lengths(prompts, completions):
            return Rewards(mean=torch.zeros(0, dtype=torch.float64), variance=torch.zeros(0, dtype=torch.float64))
        if self._reader is None:
            self.prepare()
        assert self._reader is not None
        members_NK = self._reader.scores(prompts, completions)
        if self.centre == "none":
            return self._rewards(members_NK, None)
        numbers: dict[Any, int] = {}
        return self._rewards(
            members_NK, torch.tensor([numbers.setdefault(key_of(prompt), len(numbers)) for prompt in prompts])
        )

    def tabular(self, rewards: Rewards) -> Rewards:
        """The aggregate of members' scores as they are (not centred), or of a known mean and variance.

        Raises:
            InputError: the rule needs members or a variance, and the game gives none.
        """
        if rewards.members is not None:
            self._check_estimate(rewards.members.shape[1])
            found = self._rewards(rewards.members, None)
            given = rewards.variance
            return found if given is None else Rewards(mean=found.mean, variance=given, members=found.members)
        if self.rule == "wco":
            raise InputError('oracle.aggregate: wco needs the members\' scores; add "members" (K lists) to the game')
        if self.rule != "mean" and rewards.variance is None:
            raise InputError(
                f'oracle.aggregate: {self.rule} needs a variance; add "sigma" or "members" (K lists) to the game'
            )
        if self.rule == "mean" or rewards.variance is None:
            return rewards
        return Rewards(mean=moments(rewards.mean, rewards.variance, self.rule, self.penalty), variance=rewards.variance)

    def _rewards(self, members_NK: Tensor, group_N: Tensor | None) -> Rewards:
        mean_N, others_NK = aggregate(members_NK, self.rule, self.penalty, ddof=self.ddof, group_N=group_N), members_NK
        if self.estimate is not None:
            mean_N = members_NK[:, self.estimate]
            others_NK = members_NK[:, [k for k in range(members_NK.shape[1]) if k != self.estimate]]
        variance_N = spread(others_NK, ddof=1, group_N=group_N) if others_NK.shape[1] > 1 else None
        return Rewards(mean=mean_N, variance=variance_N, members=members_NK)

    def _check_estimate(self, members: int) -> None:
        if self.estimate is not None and self.estimate >= members:
            raise InputError(f"oracle.estimate: {self.estimate}, but the members are numbered 0 to {members - 1}")

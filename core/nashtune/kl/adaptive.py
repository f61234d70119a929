"""Ziegler's KL controller: β follows the KL divergence that the rollouts show.

    e = clip(KL / target - 1, -0.2, 0.2)
    beta <- beta (1 + e n / horizon)          gain: horizon, n completions of the update
    beta <- beta (1 + K e)                    gain: constant, K = 0.1

Source: D. M. Ziegler et al., "Fine-Tuning Language Models from Human Preferences", arXiv:1909.08593, section 2.2, and
the controller of its released code (`train_policy.py`). The paper is remembered to write the gain as the constant; the
code has n/horizon, which is the default.

Legend: S = rollouts, M = completion tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from jsonargparse.typing import PositiveFloat

from nashtune.errors import InputError
from nashtune.interfaces.kl import KLController
from nashtune.kl.fixed import scalar_beta
from nashtune.rl.estimators import drawn, per_completion

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import LossBatch, RowKind
    from nashtune.interfaces.rollouts import RolloutBatch

CLIP = 0.2
"""Largest relative error that moves β, of either sign (paper and code)."""
CONSTANT_GAIN = 0.1
"""K of the paper, as it is remembered."""


class AdaptiveKL(KLController):
    """β rises where the KL divergence of a round's rollouts is above a target, and falls where it is below.

    The KL divergence is the mean over the completions of log π/π_ref, summed over their tokens, under the policy that
    drew them. β moves once after each update, by at most a factor 1 ± 0.2 times the gain.

    Args:
        beta: β before the first update, > 0 (Ziegler's code: 0.15 on stories; TRL's former PPO: 0.2).
        target: KL divergence to steer to, in nats per completion, > 0 (code: 6).
        horizon: With `gain: horizon`, completions over which the largest error moves β by about a fifth, > 0 (code:
            10000).
        gain: `horizon`: completions of the update / horizon (code). `constant`: 0.1 (paper, from memory).
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("rollouts",)
    anchors: ClassVar[tuple[str, ...]] = ("ref",)

    def __init__(
        self,
        *,
        beta: PositiveFloat,
        target: PositiveFloat = 6.0,
        horizon: PositiveFloat = 10000.0,
        gain: Literal["horizon", "constant"] = "horizon",
    ) -> None:
        self.value = float(beta)
        self.target = float(target)
        self.horizon = float(horizon)
        self.gain = gain

    def beta(self, batch: LossBatch) -> Tensor:
        """The current β as a scalar on the batch's device, in the dtype of its log-probs, float32 at least."""
        return scalar_beta(self.value, batch)

    def check_round(self, completions: int) -> None:
        """Refuse a horizon so short that one update could move β to 0 or below.

        Raises:
            InputError: it is.
        """
        if self.gain == "horizon" and CLIP * completions >= self.horizon:
            raise InputError(
                f"kl.horizon: {self.horizon:g}, and an update has {completions} completions, which could move beta by "
                f"{CLIP * completions / self.horizon:.0%} at once, below 0; give more than {CLIP * completions:g}"
            )

    def report(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """`kl`: for each rollout, the sum over its tokens of log π/π_ref before the update (S,)."""
        rollouts = cast("RolloutBatch", batch)
        return {"kl": per_completion(drawn(rollouts) - rollouts.anchors["ref"], rollouts)}

    def observe_round(self, means: Mapping[str, float], completions: int) -> None:
        """Move β by the update's mean KL."""
        error = min(max(means["kl"] / self.target - 1.0, -CLIP), CLIP)
        gain = completions / self.horizon if self.gain == "horizon" else CONSTANT_GAIN
        self.value *= 1.0 + error * gain

    def setpoint(self) -> float:
        """The target."""
        return self.target

    def state_dict(self) -> dict[str, Any]:
        """The current β, in double precision."""
        return {"beta": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved β."""
        self.value = float(state["beta"])

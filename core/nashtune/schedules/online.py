"""The schedule of self-play: each round samples from the last policy, judges, pairs, and trains on the pairs."""

from __future__ import annotations

from typing import ClassVar

from jsonargparse.typing import PositiveInt

from nashtune.interfaces.schedule import START, Anchor, Collect, Judge, Pair, Round, Schedule, Snapshot, Update


def snapshot_name(of: str, number: int) -> str:
    """The snapshot of `of` after round `number`: `main@2`; after round 0 it is the policy before training."""
    return f"{of}@{number}" if number else START


class OnlineSchedule(Schedule):
    """Rounds of sampling and training, each from the policy that the round before has made.

    The reference `previous` is that policy too: the one that drew the round's completions. Optimiser, learning-rate
    schedule and warm-up begin anew in each round.

    Args:
        rounds: Rounds T, > 0 (INPO and SPPO: 3).
    """

    reads: ClassVar[tuple[str, ...]] = ("oracle", "sampler", "pairing")
    gives_previous: ClassVar[bool] = True

    def __init__(self, *, rounds: PositiveInt = 3) -> None:
        self.count = int(rounds)

    def rounds(self) -> tuple[Round, ...]:
        """Round t makes `main@t` out of `main@(t-1)`."""
        return tuple(self._round(t) for t in range(1, self.count + 1))

    def _round(self, t: int) -> Round:
        before, after = snapshot_name("main", t - 1), snapshot_name("main", t)
        return Round(
            phases=(
                Collect(policy=before),
                Judge(),
                Pair(),
                Anchor(previous={before: 1.0}),
                Update(start=before),
                Snapshot(name=after),
            ),
            policy=after,
        )

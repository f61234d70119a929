"""Time of training an ensemble of K reward heads on one trunk, against one reward model.

Run on demand: `python tests/benchmarks/reward_heads.py`. First it shows that both train the same thing: with equal
seeds, member 0 of the ensemble starts with the scores and the loss of the one model. Then both take optimiser steps on
the same pairs (loss, gradient, AdamW) and take turns within each round, so that other work on the machine meets both.
The ratio is taken within a round; shown are its median and range. CPU seconds are the steadier number where other work
shares the machine. K models of their own would have a ratio of K.

Required: at most 1.1 times the time of one model.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from nashtune.interfaces import TokenBatch
    from nashtune.models.reward_policy import RewardPolicy
    from nashtune.training.objective import Objective

REQUIRED = 1.1


@dataclass
class Trained:
    """A reward model in training.

    Args:
        policy: With its heads.
        objective: Of the spec reward_bt.
        optimizer: AdamW over all weights.
    """

    policy: RewardPolicy
    objective: Objective
    optimizer: torch.optim.Optimizer

    def step(self, batch: TokenBatch) -> None:
        """One optimiser step."""
        import torch

        torch.autograd.backward(self.objective.evaluate(batch).values.mean())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def start(folder: Path, members: int) -> Trained:
    """A new reward model on the trunk in a folder."""
    import torch

    from nashtune.models.config import PolicyConfig
    from nashtune.models.reward_policy import RewardPolicy
    from nashtune.spec.resolve import resolve
    from nashtune.training.objective import Objective

    torch.manual_seed(0)
    plain = resolve("reward_bt").to_dict()
    spec = resolve({**plain, "head": {**plain.get("head", {}), "members": members}})
    assert spec.head is not None, "a reward spec has a head"
    policy = RewardPolicy(PolicyConfig(path=str(folder)), spec.head)
    policy.load()
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
    return Trained(policy, Objective(spec, policy, "dense", lambda value: value), optimizer)


def show_same_start(one: Trained, ensemble: Trained, batch: TokenBatch) -> bool:
    """Prints the loss of the one model and of member 0; whether scores and losses are equal."""
    import torch
    from torch.nn.functional import logsigmoid

    with torch.no_grad():
        single, first = (trained.policy.scores(batch)[:, 0] for trained in (one, ensemble))
        losses = [float(-logsigmoid(scores.chunk(2)[0] - scores.chunk(2)[1]).mean()) for scores in (single, first)]
        trained_on = float(one.objective.evaluate(batch).values.mean())
    same = bool(torch.allclose(single, first, rtol=1e-5, atol=1e-6)) and abs(trained_on - losses[1]) < 1e-6
    print(f"loss at the start: one model {losses[0]:.7f} (as trained {trained_on:.7f}), member 0 {losses[1]:.7f}")
    print("equal" if same else "NOT equal")
    return same


def seconds(trained: Trained, batch: TokenBatch, steps: int) -> tuple[float, float]:
    """Wall and CPU seconds of some optimiser steps."""
    began, used = time.perf_counter(), time.process_time()
    for _ in range(steps):
        trained.step(batch)
    return time.perf_counter() - began, time.process_time() - used


def main() -> int:
    """Prints the table; returns 1 where a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10, help="K")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps of each in a round")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=192, help="of a prompt and its answer")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads)}  # before torch is imported

    import torch

    from nashtune.testing import tiny_model, token_batch

    torch.set_num_threads(args.threads)
    batch = token_batch([(args.tokens // 4, args.tokens - args.tokens // 4)] * (2 * args.pairs))
    with tempfile.TemporaryDirectory() as folder:
        trunk = tiny_model(Path(folder) / "trunk", layers=args.layers, hidden=args.hidden)
        one, ensemble = start(trunk, 1), start(trunk, args.members)
    same = show_same_start(one, ensemble, batch)
    for trained in (one, ensemble):
        trained.step(batch)  # memory is asked for once
    times: dict[str, list[tuple[float, float]]] = {"one": [], "ensemble": []}
    for turn in range(args.rounds):
        both = [("one", one), ("ensemble", ensemble)]
        for name, trained in both[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(seconds(trained, batch, args.steps))
    weights = sum(weight.numel() for weight in one.policy.parameters())
    print(f"\n{weights / 1e6:.2f} M weights, {args.pairs} pairs of {args.tokens} tokens, {args.rounds} rounds\n")
    print(f"| | one model, ms a step | {args.members} heads, ms a step | ratio (median) | ratio (range) |")
    print("|---|---|---|---|---|")
    medians = []
    for i, clock in enumerate(("wall", "CPU")):
        single, several = ([spent[i] / args.steps for spent in times[name]] for name in ("one", "ensemble"))
        ratios = [b / a for a, b in zip(single, several, strict=True)]
        medians.append(statistics.median(ratios))
        shown = " | ".join(f"{1000 * statistics.median(values):.1f}" for values in (single, several))
        print(f"| {clock} | {shown} | {medians[-1]:.3f} | {min(ratios):.3f}-{max(ratios):.3f} |")
    met = same and min(medians) <= REQUIRED
    print(f"\n{'met' if met else 'NOT met'}: at most {REQUIRED} times the time of one model")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

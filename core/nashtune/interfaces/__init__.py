"""The interfaces of DESIGN: what the core defines and plugins implement. Importing this imports no torch."""

from nashtune.interfaces.batch import Anchor, ExampleBatch, LogProbs, LossBatch, LossOutput, PairBatch, Step, TokenBatch
from nashtune.interfaces.kl import KLController
from nashtune.interfaces.layout import Layout, Packed, Segment
from nashtune.interfaces.loss import Loss
from nashtune.interfaces.oracle import Oracle, PreferenceOracle, Prompt, RewardOracle, Rewards
from nashtune.interfaces.pairing import Comparisons, Paired, Pairing, Pairs
from nashtune.interfaces.policy import Encoded, LogProbEngine, Policy
from nashtune.interfaces.reference import Reference
from nashtune.interfaces.rollouts import Advantages, RolloutBatch
from nashtune.interfaces.sampler import Completion, Sampler, Surroundings
from nashtune.interfaces.schedule import Round, Schedule
from nashtune.interfaces.scores import ScoreBatch
from nashtune.interfaces.stage import Outcome, Planned, Stage, Work

__all__ = [
    "Advantages",
    "Anchor",
    "Comparisons",
    "Completion",
    "Encoded",
    "ExampleBatch",
    "KLController",
    "Layout",
    "LogProbEngine",
    "LogProbs",
    "Loss",
    "LossBatch",
    "LossOutput",
    "Oracle",
    "Outcome",
    "Packed",
    "PairBatch",
    "Paired",
    "Pairing",
    "Pairs",
    "Planned",
    "Policy",
    "PreferenceOracle",
    "Prompt",
    "Reference",
    "RewardOracle",
    "Rewards",
    "RolloutBatch",
    "Round",
    "Sampler",
    "Schedule",
    "ScoreBatch",
    "Segment",
    "Stage",
    "Step",
    "Surroundings",
    "TokenBatch",
    "Work",
]

"""The interfaces of DESIGN: what the core defines and plugins implement. Importing this imports no torch."""

from nashtune.interfaces.batch import Anchor, ExampleBatch, LogProbs, LossOutput, PairBatch, Step, TokenBatch
from nashtune.interfaces.kl import KLController
from nashtune.interfaces.loss import Loss
from nashtune.interfaces.oracle import PreferenceOracle, RewardOracle, Rewards
from nashtune.interfaces.pairing import Pairing
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.interfaces.reference import Reference
from nashtune.interfaces.sampler import Completion, Sampler
from nashtune.interfaces.schedule import Round, Schedule

__all__ = [
    "Anchor",
    "Completion",
    "ExampleBatch",
    "KLController",
    "LogProbEngine",
    "LogProbs",
    "Loss",
    "LossOutput",
    "PairBatch",
    "Pairing",
    "Policy",
    "PreferenceOracle",
    "Reference",
    "RewardOracle",
    "Rewards",
    "Round",
    "Sampler",
    "Schedule",
    "Step",
    "TokenBatch",
]

"""The critic: a value before each completion token, for generalised advantage estimation.

Two forms: a linear head on the policy's own trunk, at zero, or a copy of the reward model with a trunk of its own.

Legend: N = sequences, T = positions, M = completion tokens, H = hidden size, K = members of an ensemble.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nashtune.errors import InputError
from nashtune.models.locate import ModelFolder, locate, resolve_export
from nashtune.models.preflight import load_tokenizer
from nashtune.models.reward_folder import head_width, read_reward_file
from nashtune.models.reward_loading import load_reward_model
from nashtune.spec.model import HeadSpec

if TYPE_CHECKING:
    from nashtune.interfaces import LogProbEngine, TokenBatch
    from nashtune.interfaces.policy import Encoded
    from nashtune.models.policy import HFPolicy


OPTION = "spec.loss.value_init: reward_model (spec.oracle.path)"


class ValueHead(nn.Module):
    """A linear map of the policy's hidden states, at zero: the first advantages are returns.

    Args:
        size: Of a hidden state.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, batch: TokenBatch, states: Encoded, engine: LogProbEngine) -> tuple[Tensor, Tensor]:
        """Values before each completion token (M,) and after the last one (N,), float32."""
        with torch.autocast(states.hidden.device.type, enabled=False):
            return self.linear(states.hidden.float())[:, 0], self.linear(states.last.float())[:, 0]


class RewardCritic(nn.Module):
    """A copy of the reward model that reads its score before each token instead of at the end.

    Args:
        model: A sequence classifier; the members of an ensemble are averaged.
        gain: Of its normaliser, per member (K,).
        bias: Of its normaliser (K,).
    """

    def __init__(self, model: Any, gain: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.model = model.float().requires_grad_(True).train()  # as it is trained; it has no dropout
        self.register_buffer("gain", gain.float())
        self.register_buffer("bias", bias.float())

    def forward(self, batch: TokenBatch, states: Encoded, engine: LogProbEngine) -> tuple[Tensor, Tensor]:
        """Values before each completion token (M,) and after the last one (N,); the policy's states are not read."""
        own = engine.encode(getattr(self.model, self.model.base_model_prefix), batch)
        return self._value(own.hidden), self._value(own.last)

    def _value(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            value: Tensor = (self.model.score(hidden.float()) * self.gain + self.bias).mean(1)
        return value


def make_critic(init: str, policy: HFPolicy, path: str | None) -> nn.Module:
    """A critic for a loaded policy.

    Args:
        init: "zero", or "reward_model" for a copy of the oracle's.
        policy: Loaded.
        path: The oracle's folder, where it has one; a run folder stands for its export.

    Raises:
        InputError: as `check_critic`.
    """
    if init == "zero":
        return ValueHead(int(policy.loaded().config.get_text_config().hidden_size)).to(policy.device)
    folder, members = check_critic(policy.config.path, path)
    loaded = load_reward_model(
        folder,
        HeadSpec(members=members),
        precision="fp32",
        attention=policy.config.attention,
        merge=True,
        seed=0,
        option=OPTION,
    )
    file = read_reward_file(folder.path, OPTION)
    gain = torch.tensor(file.gain) if file is not None else torch.ones(members)
    bias = torch.tensor(file.bias) if file is not None else torch.zeros(members)
    return RewardCritic(loaded.model, gain, bias).to(policy.device)


def check_critic(policy: str, path: str | None) -> tuple[ModelFolder, int]:
    """Whether a critic can start from the oracle's model, without reading a weight.

    Args:
        policy: Path of the policy.
        path: The oracle's folder, where it has one.

    Returns:
        The reward model's folders, and the outputs of its head.

    Raises:
        InputError: the oracle is no single reward model with weights of its own, or its tokens are not the policy's.
    """
    if path is None:
        raise InputError(f"{OPTION}: the spec's oracle has no folder that a critic could start from; use zero")
    folder = locate(str(resolve_export(path, OPTION)), OPTION)
    members = head_width(folder, OPTION)
    if members is None:
        raise InputError(f"{OPTION}: {path} is a language model without a score head; use zero")
    if load_tokenizer(policy).get_vocab() != load_tokenizer(folder.path, OPTION).get_vocab():
        raise InputError(f"{OPTION}: {path} has another vocabulary, and a critic reads the policy's tokens; use zero")
    return folder, members

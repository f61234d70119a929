"""A policy, stand-ins for vLLM servers that hold the same model, and samplers between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nashtune.interfaces.sampler import Surroundings
from nashtune.samplers.vllm import VLLMSampler
from vllm_stub import Stub

PROMPTS = [[10, 20, 30], [11], [15, 16, 17, 8, 9, 40, 41], [60, 61], [90, 91, 92, 93]]


@dataclass
class Bench:
    policy: object
    surroundings: Surroundings
    stubs: list[Stub]

    def sampler(self, **options) -> VLLMSampler:
        options = {"max_new_tokens": 6, "servers": [stub.url for stub in self.stubs], "retries": 2, **options}
        return VLLMSampler(**options)

    def ready(self, **options) -> VLLMSampler:
        sampler = self.sampler(**options)
        sampler.attach(self.surroundings)
        sampler.sync("main@1")
        return sampler

    def train(self, scale: float = 0.5) -> None:
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in self.policy.trainable_state_dict().values():
                weight.add_(scale * torch.randn(weight.shape, generator=draw) * weight.std())

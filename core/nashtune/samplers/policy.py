"""Sampler `policy`: completions of the live policy."""

from __future__ import annotations

from nashtune.errors import InputError
from nashtune.samplers.generate import LiveSampler


class PolicySampler(LiveSampler):
    """Samples from the policy itself, or greedily at temperature 0."""

    def _weight(self, reference_weight: float | None) -> float:
        if reference_weight not in (None, 0):
            raise InputError(
                f"sampler: `policy` draws from the policy itself, but the method asks for a mixture in which the "
                f"starting policy has weight {reference_weight:g}; set spec.sampler.name to mixture"
            )
        return 0.0

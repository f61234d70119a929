"""The core's own components: those that belong to no paper. It is loaded like a plugin, under the name `nashtune`."""

from __future__ import annotations

from nashtune.plugins.component import Component
from nashtune.plugins.hookspecs import hookimpl


@hookimpl
def nashtune_components() -> list[Component]:
    """General components, by kind."""
    return [
        Component("kl", "fixed", "nashtune.kl.fixed:FixedKL"),
        Component("reference", "base", "nashtune.references.base:BaseReference"),
        Component("reference", "adapter_off", "nashtune.references.adapter_off:AdapterOffReference"),
        Component("reference", "checkpoint", "nashtune.references.checkpoint:CheckpointReference"),
        Component("reference", "cached", "nashtune.references.cached:CachedReference"),
        Component("schedule", "offline", "nashtune.schedules.offline:OfflineSchedule"),
        Component("sampler", "policy", "nashtune.samplers.policy:PolicySampler"),
        Component("oracle", "vader", "nashtune.oracles.vader:VaderOracle"),
        Component("pairing", "best_worst", "nashtune.pairing.scores:BestWorst"),
        Component("pairing", "all_pairs", "nashtune.pairing.scores:AllPairs"),
        Component("pairing", "adjacent", "nashtune.pairing.scores:Adjacent"),
    ]

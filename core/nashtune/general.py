"""The core's own components: those that belong to no paper. It is loaded like a plugin, under the name `nashtune`."""

from __future__ import annotations

from nashtune.plugins.component import Component
from nashtune.plugins.hookspecs import hookimpl


@hookimpl
def nashtune_components() -> list[Component]:
    """General components, by kind."""
    return [
        Component("kl", "fixed", "nashtune.kl.fixed:FixedKL"),
        Component("kl", "adaptive", "nashtune.kl.adaptive:AdaptiveKL"),
        Component("reference", "base", "nashtune.references.base:BaseReference"),
        Component("reference", "adapter_off", "nashtune.references.adapter_off:AdapterOffReference"),
        Component("reference", "checkpoint", "nashtune.references.checkpoint:CheckpointReference"),
        Component("reference", "previous", "nashtune.references.previous:PreviousReference"),
        Component("reference", "cached", "nashtune.references.cached:CachedReference"),
        Component("schedule", "offline", "nashtune.schedules.offline:OfflineSchedule"),
        Component("schedule", "online", "nashtune.schedules.online:OnlineSchedule"),
        Component("schedule", "on_policy", "nashtune.schedules.on_policy:OnPolicySchedule"),
        Component("sampler", "policy", "nashtune.samplers.policy:PolicySampler"),
        Component("sampler", "mixture", "nashtune.samplers.mixture:MixtureSampler"),
        Component("sampler", "best_of_n", "nashtune.samplers.best_of_n:BestOfNSampler"),
        Component("sampler", "recorded", "nashtune.samplers.recorded:RecordedSampler"),
        Component("sampler", "vllm", "nashtune.samplers.vllm:VLLMSampler"),
        Component("oracle", "preference", "nashtune.oracles.chosen_by_run:ChosenByRun"),
        Component("oracle", "reward", "nashtune.oracles.chosen_by_run:RewardChosenByRun"),
        Component("oracle", "preference_model", "nashtune.oracles.preference_model:PreferenceModelOracle"),
        Component("oracle", "reward_model", "nashtune.oracles.reward_model:RewardModelOracle"),
        Component("oracle", "reward_ensemble", "nashtune.oracles.reward_ensemble:RewardEnsembleOracle"),
        Component("oracle", "judge", "nashtune.oracles.judge:JudgeOracle"),
        Component("oracle", "rules", "nashtune.oracles.rules:RulesOracle"),
        Component("oracle", "raters", "nashtune.oracles.raters:RatersOracle"),
        Component("oracle", "matrix", "nashtune.oracles.matrix:MatrixOracle"),
        Component("oracle", "vader", "nashtune.oracles.vader:VaderOracle"),
        Component("stage", "fit", "nashtune.pipeline.fit_stage:FitStage"),
        Component("stage", "perplexity_filter", "nashtune.pipeline.perplexity_stage:PerplexityFilterStage"),
        Component("pairing", "iid", "nashtune.pairing.iid:IID"),
        Component("pairing", "tournament", "nashtune.pairing.tournament:Tournament"),
        Component("pairing", "best_worst", "nashtune.pairing.ranked:BestWorst"),
        Component("pairing", "all_pairs", "nashtune.pairing.ranked:AllPairs"),
        Component("pairing", "adjacent", "nashtune.pairing.ranked:Adjacent"),
    ]

"""Stage `perplexity_filter`: keeps the answers that the model to be trained finds likely enough.

The idea is of "Investigating on RLHF methodology" (arXiv:2410.01789), whose abstract proposes to collect a preference
set for one model by perplexity. Its rule and its thresholds are not known to us: rules, defaults and report here are a
reconstruction of our own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt

from nashtune.errors import InputError
from nashtune.interfaces.stage import Outcome, Planned, Stage, Work
from nashtune.pipeline.layers import untyped
from nashtune.pipeline.perplexity_rows import PAIR, ApplyTo, read_candidates
from nashtune.pipeline.perplexity_rules import LEAST_OWN, NEEDS_OWN, READS, Rule
from nashtune.pipeline.refer import is_reference
from nashtune.spec.run import Runs
from nashtune.spec.runoptions import check_settings

DATA = ("template", "max_length", "max_prompt_length", "overflow", "limit")
"""What of the run's `data` section the filter reads, besides `train`."""
MODEL = ("precision", "attention")


class PerplexityFilterStage(Stage):
    """Scores every answer under the model that is to be trained, and keeps rows by a rule on their perplexity.

    nll = minus the mean log-prob of the answer's tokens, EOS included, the prompt excluded, at temperature 1, and
    perplexity is exp(nll). Tokens are those of training: the run's `data.template`, `max_length`, `overflow`, `limit`.

    Output `train`: the rows that are kept, with their own columns; `report`: report.json. Beside them histogram.png,
    and scores.jsonl with the numbers of every row.

    Args:
        rule: absolute: ppl <= tau. own_quantile: ppl <= the q-quantile of the perplexity of the model's own samples on
            the same prompts, all prompts together. zscore: (nll - mean) / std of own samples <= z. band: lo <= ppl <=
            hi. topk: the n lowest of a prompt's answers. The paper's rule is unknown; the default is ours.
        tau: Highest perplexity, for the rule absolute; > 0.
        q: Quantile in [0, 1], for the rule own_quantile; none is 0.95, which is ours: the paper's threshold is unknown.
        z: Highest z-score in standard deviations, for the rule zscore.
        lo: Lowest perplexity, for the rule band; > 0.
        hi: Highest perplexity, for the rule band; > 0.
        n: Answers of a prompt, for the rule topk.
        apply_to: Which answers of a pair must pass: both, chosen, rejected, or any one of them. The default is ours.
        pair_gap: Largest difference between the nll of chosen and rejected, in nats per token, so that no pair is told
            apart by fluency alone; none for any.
        length_buckets: Lengths in answer tokens, rising: own samples and limits are taken apart for answers up to the
            first, up to the second, and so on, and beyond the last. Where a bucket has no own samples to speak of,
            those of all lengths count.
        model: Folder of the model to score under; none for the run's policy.
        sources: Files of rows; none for the run's data.train.
        samples: Own answers to each prompt, for the rules that need them; zscore needs 2 in all.
        own_prompts: Prompts that they are drawn for, picked by the seed; none for all.
        temperature: Of own samples: as the model is used.
        top_p: Of own samples.
        max_new_tokens: Longest own sample, in tokens.
        batch_tokens: Largest batch in tokens, with padding. Another one changes numbers in their last bits.
    """

    outputs: ClassVar[tuple[str, ...]] = ("train", "report")
    placement: ClassVar[tuple[str, ...]] = ("batch_tokens",)
    decides: ClassVar[tuple[str, ...]] = (
        "rule",
        "tau",
        "q",
        "z",
        "lo",
        "hi",
        "n",
        "apply_to",
        "pair_gap",
        "length_buckets",
    )

    def __init__(
        self,
        *,
        rule: Literal["absolute", "own_quantile", "zscore", "band", "topk"] = "own_quantile",
        tau: PositiveFloat | None = None,
        q: ClosedUnitInterval | None = None,
        z: float | None = None,
        lo: PositiveFloat | None = None,
        hi: PositiveFloat | None = None,
        n: PositiveInt | None = None,
        apply_to: Literal["both", "chosen", "rejected", "any"] = "both",
        pair_gap: NonNegativeFloat | None = None,
        length_buckets: list[PositiveInt] | None = None,
        model: str | None = None,
        sources: list[str] | None = None,
        samples: PositiveInt = 4,
        own_prompts: PositiveInt | None = None,
        temperature: NonNegativeFloat = 1.0,
        top_p: ClosedUnitInterval = 1.0,
        max_new_tokens: PositiveInt = 256,
        batch_tokens: PositiveInt = 8192,
    ) -> None:
        self.settings: dict[str, Any] = {
            "rule": rule,
            "tau": tau,
            "q": 0.95 if q is None and rule == "own_quantile" else q,
            "z": z,
            "lo": lo,
            "hi": hi,
            "n": n,
            "apply_to": apply_to,
            "pair_gap": pair_gap,
            "length_buckets": length_buckets,
            "samples": samples,
            "own_prompts": own_prompts,
            "temperature": temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
            "batch_tokens": batch_tokens,
        }
        numbers = {name: self.settings[name] for names in READS.values() for name in names}
        for name, value in numbers.items():
            if value is None and name in READS[rule]:
                raise ValueError(f"rule: {rule} needs {name}")
            if value is not None and name not in READS[rule]:
                raise ValueError(
                    f"rule: {rule} does not read {name}, but {' and '.join(READS[rule])}; set {name} to none"
                )
        if own_prompts is not None and samples * own_prompts < LEAST_OWN.get(rule, 0):
            raise ValueError(
                f"samples: {samples} for each of own_prompts: {own_prompts} prompts; rule {rule} takes at least "
                f"{LEAST_OWN[rule]} own samples in all, so raise one of the two"
            )
        if rule == "band" and lo is not None and hi is not None and lo > hi:
            raise ValueError(f"lo {lo:g} is above hi {hi:g}, so nothing would be kept")
        borders = length_buckets or []
        if borders != sorted(set(borders)):
            raise ValueError(f"length_buckets: {borders}; give rising lengths, each once")
        if borders and rule in ("absolute", "band"):
            raise ValueError(f"length_buckets: rule {rule} has the same limits for all lengths; leave them out")
        self.rule = Rule(name=rule, **numbers)
        self.apply_to: ApplyTo = apply_to
        self.borders = borders
        self.model = model
        self.sources = sources

    def check(self, runs: Runs) -> Planned:
        """Look at rows and model as far as they are there already.

        Raises:
            InputError: what is wrong.
        """
        settings = self._all(runs)
        model, sources = settings["model"]["path"], settings["sources"]
        notes: tuple[str, ...] = ()
        there = [source for source in sources if not is_reference(source) and not source.startswith("hub:")]
        if there:
            read = read_candidates(there, settings["data"]["limit"], self.apply_to)
            notes = (f"{len(read.rows)} rows to filter",)
            if self.settings["pair_gap"] is not None and all(row.slots != PAIR for row in read.rows):
                raise InputError("pair_gap: there is no pair {prompt, chosen, rejected} among the rows; leave it out")
        if not is_reference(model) and not model.startswith(("demo:", "hub:")):
            from nashtune.models.preflight import check_folder

            check_folder(model, chat=settings["data"]["template"] == "chat", option="policy.path")
        files = [file for file in (*sources, model) if not file.startswith(("demo:", "hub:"))]
        return Planned(settings=settings, files=tuple(dict.fromkeys(files)), notes=notes)

    def run(self, runs: Runs, work: Work) -> Outcome:
        """Score, decide and write.

        Raises:
            InputError: rows or model are wrong, or nothing is kept.
        """
        from nashtune.pipeline.perplexity_filter import filter_rows

        trainer = untyped(runs.data.get("trainer", {}))
        return filter_rows(self, self._all(runs), work, cpu=trainer.get("accelerator") == "cpu")

    def _all(self, runs: Runs) -> dict[str, Any]:
        """Everything that the result depends on."""
        options = check_settings(runs)
        policy, data = options["policy"], options["data"]
        sources = self.sources or ([data["train"]] if data["train"] is not None else [])
        if not sources:
            raise InputError(
                f"{runs.where('data')}: data.train is missing, and there is nothing else to filter; give a file, for "
                "example --data.train pairs.jsonl"
            )
        return {
            **self.settings,
            "sources": sources,
            "model": {"path": self.model or policy["path"], **{name: policy[name] for name in MODEL}},
            "data": {name: data[name] for name in DATA},
            "engine": untyped(runs.data.get("engine", "auto")),
            "seed_everything": int(untyped(runs.data.get("seed_everything", 0))),
        }

    @property
    def needs_own(self) -> bool:
        """Whether the rule compares with the model's own samples."""
        return self.rule.name in NEEDS_OWN

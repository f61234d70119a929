"""The work of the stage `perplexity_filter`: tokens, log-probs, own samples, the rule, and what is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nashtune.data.lengths import Limits
from nashtune.data.template import make_template
from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.interfaces.stage import Outcome, Work
from nashtune.logprobs import get_engine
from nashtune.models.config import PolicyConfig
from nashtune.models.locate import locate
from nashtune.models.preflight import load_tokenizer
from nashtune.models.sizes import context_length
from nashtune.pipeline.perplexity_plot import draw
from nashtune.pipeline.perplexity_report import Verdict, make_report
from nashtune.pipeline.perplexity_rows import Candidates, encode, read_candidates, select, to_lines
from nashtune.pipeline.perplexity_rules import READS, bucket_name, kept, limits
from nashtune.pipeline.perplexity_score import Scored, Scorer
from nashtune.samplers.policy import PolicySampler

if TYPE_CHECKING:
    from nashtune.pipeline.perplexity_stage import PerplexityFilterStage


def filter_rows(stage: PerplexityFilterStage, settings: Mapping[str, Any], work: Work, *, cpu: bool) -> Outcome:
    """Do it.

    Args:
        stage: With its rule.
        settings: Everything that the result depends on.
        work: The stage's folder.
        cpu: Whether to stay on the CPU though there is a GPU.

    Raises:
        InputError: rows or model are wrong, or nothing is kept.
    """
    model, data = settings["model"], settings["data"]
    config = PolicyConfig(**model)
    context = context_length(locate(config.path))
    read = read_candidates(settings["sources"], data["limit"], stage.apply_to)
    template = make_template(data["template"], load_tokenizer(config.path))
    sizes = {name: data[name] for name in ("max_length", "max_prompt_length", "overflow")}
    encode(read, template, Limits(**sizes, context=context))
    if not read.rows:
        raise InputError(f"none of the {read.read.total()} rows fits data.max_length {data['max_length']}; raise it")
    scorer = Scorer(
        config,
        get_engine(settings["engine"]),
        work.folder / "journal",
        cpu=cpu,
        batch_tokens=settings["batch_tokens"],
        say=work.say,
    )
    places = [(row, i) for row in read.rows for i in range(len(row.texts))]
    sequences = [(row.prompt_ids, row.answer_ids[i]) for row, i in places]
    scored = scorer.score("answers", sequences, lambda i: places[i][0].where)
    own = _own(settings, read.rows, scorer, context) if stage.needs_own else {"scored": []}
    scorer.close()
    found = limits(stage.rule, own["scored"], stage.borders)
    passes = kept(stage.rule, scored, [row.prompt_ids for row, _ in places], found, stage.borders)
    verdicts, lines = _verdicts(stage, read.rows, scored, passes)
    report = {"settings": dict(settings), **make_report(read, verdicts, found, stage.borders, own)}
    if not lines:
        reads = [*READS[stage.rule.name], *(["pair_gap"] if stage.settings["pair_gap"] is not None else [])]
        options = " or ".join(f"--stages.{work.folder.name}.{name}" for name in reads)
        raise InputError(
            f"the filter keeps none of {len(verdicts)} rows: {_words(report, stage.borders)}; loosen the rule "
            f"({stage.rule.name}) with {options}: in the same --run_dir what is scored is not scored again"
        )
    write_bytes_atomically(work.folder / "scores.jsonl", to_lines([_score_line(one) for one in verdicts]))
    write_bytes_atomically(work.folder / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    draw(report, work.folder / "histogram.png", title=f"perplexity filter: {_words(report, stage.borders)}")
    write_bytes_atomically(work.folder / "train.jsonl", to_lines(lines))
    return Outcome(
        outputs={"train": work.folder / "train.jsonl", "report": work.folder / "report.json"},
        summary=_words(report, stage.borders),
        numbers={name: value for name, value in report.items() if name not in ("histograms", "settings")},
    )


def _own(
    settings: Mapping[str, Any], rows: Sequence[Candidates], scorer: Scorer, context: int | None
) -> dict[str, Any]:
    """The model's own answers to the same prompts, scored as the rows' answers are: exact tokens, temperature 1."""
    prompts = list(dict.fromkeys(row.prompt_ids for row in rows))
    room = None if context is None else context - settings["max_new_tokens"]
    fit = [prompt for prompt in prompts if room is None or len(prompt) <= room]
    if not fit:
        raise InputError(
            f"max_new_tokens: {settings['max_new_tokens']} leaves no room for any prompt in the model's context of "
            f"{context} tokens; lower it"
        )
    without_room = len(prompts) - len(fit)
    asked = settings["own_prompts"]
    if asked is not None and asked < len(fit):
        from nashtune.data.order import permutation

        order = permutation(len(fit), settings["seed_everything"], 0)
        fit = [fit[i] for i in sorted(order[:asked])]
    sampler = PolicySampler(
        completions=settings["samples"],
        max_new_tokens=settings["max_new_tokens"],
        temperature=settings["temperature"],
        top_p=settings["top_p"],
    )
    drawn = scorer.own_samples(sampler, fit, settings["seed_everything"])
    sequences = [(fit[one.prompt], one.token_ids) for one in drawn]
    scored: list[Scored] = scorer.score("own", sequences, lambda i: f"own sample {i}")
    return {
        "prompts": len(fit),
        "prompts_without_room": without_room,
        "samples": len(drawn),
        "unfinished": sum(one.finish == "length" for one in drawn),
        "scored": scored,
    }


def _verdicts(
    stage: PerplexityFilterStage, rows: Sequence[Candidates], scored: Sequence[Scored], passes: Sequence[bool]
) -> tuple[list[Verdict], list[Mapping[str, Any]]]:
    """What became of each row, and the rows that are kept."""
    verdicts: list[Verdict] = []
    lines: list[Mapping[str, Any]] = []
    start = 0
    for row in rows:
        part = slice(start, start + len(row.texts))
        start = part.stop
        nll = [value for value, _ in scored[part]]
        line, reason = select(row, passes[part], nll, apply_to=stage.apply_to, pair_gap=stage.settings["pair_gap"])
        verdicts.append(Verdict(row=row, scored=scored[part], passes=passes[part], reason=reason))
        if line is not None:
            lines.append(line)
    return verdicts, lines


def _score_line(verdict: Verdict) -> dict[str, Any]:
    """A row's numbers, for whoever asks why it was left out."""
    return {
        "where": verdict.row.where,
        "kept": verdict.kept,
        "reason": verdict.reason,
        "answers": [
            {"what": slot, "tokens": tokens, "nll": nll, "passes": passed}
            for slot, (nll, tokens), passed in zip(verdict.row.slots, verdict.scored, verdict.passes, strict=True)
        ],
    }


def _words(report: Mapping[str, Any], borders: Sequence[int]) -> str:
    """For people: "kept 37 of 50 rows (74.0 %), perplexity up to 6.54"."""
    rows = report["rows"]
    words = f"kept {rows['kept']} of {rows['read']} rows ({100 * report['kept_share']:.1f} %)"
    highest = [f"{one['high']:.3g}" for one in report["limits"] if one["high"] is not None]
    if not highest:
        return words
    lengths = ", ".join(bucket_name(i, borders) for i in range(len(borders) + 1))
    return f"{words}, perplexity up to {', '.join(highest)}" + (f" (tokens {lengths})" if borders else "")

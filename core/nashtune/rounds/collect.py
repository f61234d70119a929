"""Phase `collect`: the sampler draws completions from a snapshot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from nashtune.interfaces.schedule import Collect
from nashtune.journal.records import completions_name, write_completions
from nashtune.rounds.table import Table, parts
from nashtune.samplers.recorded_journal import PROMPTS, write_prompts

OPPONENT_SEED = 2**32  # added to the run's seed, which is smaller: an opponent's noise is not the policy's


def collect(table: Table, round: int, phase: Collect, numbers: Sequence[int], version: str) -> None:
    """Draw what the journal does not hold yet.

    Args:
        table: The game.
        round: From 1.
        phase: Whose completions, and from which weights.
        numbers: The round's prompts.
        version: Name of the weights, kept with every completion.
    """
    missing = [
        (part, chunk)
        for part, chunk in enumerate(parts(numbers))
        if not table.journal.has(round, completions_name(phase.role, part))
    ]
    if not missing:
        return
    sampler, began = table.sampler, time.perf_counter()
    who = f"collect {version}" if phase.role == "policy" else f"collect opponent {version}"
    table.progress.phase(who, sum(len(chunk) for _, chunk in missing) * sampler.completions, "completions")
    weight = table.loss.reference_weight(round) if phase.reference_weight is None else phase.reference_weight
    seed = table.seed + (OPPONENT_SEED if phase.role == "opponent" else 0)
    drawn, tokens = 0, 0
    if not table.journal.has(round, PROMPTS):
        write_prompts(table.journal, round, numbers, [table.prompts[i].prompt_ids for i in numbers])
    with table.weights(phase.policy), table.autocast():
        sampler.sync(version, phase.role)
        for part, chunk in missing:
            found = sampler.sample(
                [table.prompts[i].prompt_ids for i in chunk],
                sampler.completions,
                seed=seed,
                round=round,
                indices=chunk,
                reference_weight=weight,
            )
            texts = [table.tokenizer.decode(one.token_ids, skip_special_tokens=True).strip() for one in found]
            found = [replace(one, prompt=chunk[one.prompt]) for one in found]
            write_completions(table.journal, round, phase.role, part, found, texts)
            drawn += len(found)
            tokens += sum(len(one.token_ids) for one in found)
            table.progress.advance(len(found))
    table.progress.done(f"{drawn} completions, {tokens} tokens, {time.perf_counter() - began:.1f} s")

"""Phase `collect`: the sampler draws completions from a snapshot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from nashtune.interfaces.schedule import Collect
from nashtune.journal.records import completions_name, write_completions
from nashtune.ranks import everyone, most, of_this_rank, together
from nashtune.rounds.lost import require
from nashtune.rounds.parts import own_parts, parts, record
from nashtune.rounds.table import Table

OPPONENT_SEED = 2**32  # added to the run's seed, which is smaller: an opponent's noise is not the policy's


def collect(table: Table, round: int, phase: Collect, numbers: Sequence[int], version: str, *, complete: bool) -> None:
    """Draw what the journal does not hold yet; each rank its parts.

    Args:
        table: The game.
        round: From 1.
        phase: Whose completions, and from which weights.
        numbers: The round's prompts.
        version: Name of the weights, kept with every completion.
        complete: Whether nothing may be drawn any more: what is missing is an error.
    """
    record(table, round, numbers, complete=complete)
    if complete:
        count = len(parts(table, round, numbers))
        require(table, round, [completions_name(phase.role, part) for part in range(count)])
        return
    finished = set(table.journal.names(round))
    missing = [
        (part, chunk)
        for part, chunk in own_parts(table, round, numbers)
        if completions_name(phase.role, part) not in finished
    ]
    if not most(len(missing)):
        return
    sampler, began = table.sampler, time.perf_counter()
    who = f"collect {version}" if phase.role == "policy" else f"collect opponent {version}"
    own = sum(len(chunk) for _, chunk in missing) * sampler.completions
    table.progress.phase(who, own, of_this_rank("completions"))
    weight = table.loss.reference_weight(round) if phase.reference_weight is None else phase.reference_weight
    seed = table.seed + (OPPONENT_SEED if phase.role == "opponent" else 0)
    drawn, tokens = 0, 0
    # a rank with nothing left to draw loads and syncs as the others do: all of them take part in that
    with table.weights(phase.policy), table.autocast():
        sampler.sync(version, phase.role)
        with together(who):
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
                table.ledger.write(round, completions_name(phase.role, part))  # a sampler may choose by its scores
                write_completions(table.journal, round, phase.role, part, found, texts)
                drawn += len(found)
                tokens += sum(len(one.token_ids) for one in found)
                table.progress.advance(len(found))
    drawn, tokens = (sum(values) for values in zip(*everyone((drawn, tokens)), strict=True))
    table.progress.done(f"{drawn} completions, {tokens} tokens, {time.perf_counter() - began:.1f} s")

"""From a round's journal to the rows that its updates train on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nashtune.data.tokenise import TokenRow
from nashtune.interfaces import Paired
from nashtune.journal.records import read_pairs, scores_name
from nashtune.rounds.answers import answers
from nashtune.rounds.belong import check_pairs, other_pairs, part_duels, part_scores
from nashtune.rounds.pair import made
from nashtune.rounds.parts import parts
from nashtune.rounds.rows import PairRow, RolloutRow, Rows
from nashtune.rounds.table import Table


def load_rows(table: Table, round: int, numbers: Sequence[int]) -> Rows:
    """The round's pairs, or its rollouts where no pairing makes pairs."""
    return _rollouts(table, round, numbers) if table.pairing is None else _pairs(table, round, numbers)


def _pairs(table: Table, round: int, numbers: Sequence[int]) -> list[PairRow]:
    tokens: dict[tuple[int, int], tuple[int, ...]] = {}
    variance: dict[tuple[int, int], float | None] = {}
    for part, chunk in enumerate(parts(table, round, numbers)):
        side = answers(table, round, "policy", part, chunk)
        tokens |= {(chunk[place], k): one.token_ids for (place, k), one in side.completions.items()}
        if table.journal.has(round, scores_name(part)):
            scored = part_scores(table, round, part, chunk)
            variance |= {(one.prompt, one.k): one.variance for one in scored if one.role == "policy"}
    rows = []
    for prompt, one in _known_pairs(table, round, numbers, tokens):
        row = TokenRow(
            prompt_ids=tuple(table.prompts[prompt].prompt_ids),
            completions=(tokens[prompt, one.chosen], tokens[prompt, one.rejected]),
            p_chosen=one.p_chosen if table.soft_labels else None,
            where=f"round {round}, {table.prompts[prompt].where}, completions {one.chosen} and {one.rejected}",
            prompt_text=table.prompts[prompt].prompt_text,
        )
        spread = (variance.get((prompt, one.chosen)), variance.get((prompt, one.rejected)))
        known = one.win_rate_chosen is not None and one.win_rate_rejected is not None
        rows.append(
            PairRow(
                tokens=row,
                win_rates=(one.win_rate_chosen, one.win_rate_rejected) if known else None,  # type: ignore[arg-type]  # both are known
                variances=spread if None not in spread else None,  # type: ignore[arg-type]  # both are known
            )
        )
    return rows


def _known_pairs(
    table: Table, round: int, numbers: Sequence[int], drawn: Iterable[tuple[int, int]]
) -> list[tuple[int, Paired]]:
    pairs = read_pairs(table.journal, round)[0]
    keys = [(prompt, one.chosen, one.rejected) for prompt, one in pairs]
    check_pairs(table, round, keys, drawn)
    # a pairing may make no pairs, or one twice; both are seldom, and what a file looks like that was tampered with
    doubtful = not keys or len(set(keys)) < len(keys)
    if doubtful and made(table, round, numbers)[0] != pairs:
        raise other_pairs(table, round)
    return pairs


def _rollouts(table: Table, round: int, numbers: Sequence[int]) -> list[RolloutRow]:
    rows = []
    for part, chunk in enumerate(parts(table, round, numbers)):
        side = answers(table, round, "policy", part, chunk)
        place = {number: i for i, number in enumerate(chunk)}
        for prompt, k, score, variance in _verdicts(table, round, part, chunk):
            drawn = side.completions[place[prompt], k]
            rows.append(
                RolloutRow(
                    prompt_ids=tuple(table.prompts[prompt].prompt_ids),
                    token_ids=drawn.token_ids,
                    score=score,
                    where=f"round {round}, {table.prompts[prompt].where}, completion {k}",
                    variance=variance,
                    group=prompt,
                    finished=drawn.finish == "stop",
                    sampled_logp=drawn.token_logp,
                )
            )
    return rows


def _verdicts(
    table: Table, round: int, part: int, numbers: Sequence[int]
) -> list[tuple[int, int, float, float | None]]:
    """(prompt, k, score, variance) of the policy's completions that were judged."""
    if table.judged_by_scores:
        scored = part_scores(table, round, part, numbers)
        return [(one.prompt, one.k, one.mean, one.variance) for one in scored if one.role == "policy"]
    judged = part_duels(table, round, part, numbers)
    return [(one.prompt, one.first, one.p, None) for one in judged if not math.isnan(one.p)]

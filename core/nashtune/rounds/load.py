"""From a round's journal to the rows that its updates train on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nashtune.data.tokenise import TokenRow
from nashtune.journal.records import read_judgements, read_pairs
from nashtune.rounds.answers import answers
from nashtune.rounds.rows import PairRow, RolloutRow, Rows
from nashtune.rounds.table import Table, parts


def load_rows(table: Table, round: int, numbers: Sequence[int]) -> Rows:
    """The round's pairs, or its rollouts where no pairing makes pairs."""
    return _rollouts(table, round, numbers) if table.pairing is None else _pairs(table, round, numbers)


def _pairs(table: Table, round: int, numbers: Sequence[int]) -> list[PairRow]:
    tokens: dict[tuple[int, int], tuple[int, ...]] = {}
    for part, chunk in enumerate(parts(numbers)):
        side = answers(table, round, "policy", part, chunk)
        tokens |= {(chunk[place], k): one.token_ids for (place, k), one in side.completions.items()}
    rows = []
    for prompt, made in read_pairs(table.journal, round)[0]:
        row = TokenRow(
            prompt_ids=tuple(table.prompts[prompt].prompt_ids),
            completions=(tokens[prompt, made.chosen], tokens[prompt, made.rejected]),
            p_chosen=made.p_chosen if table.soft_labels else None,
            where=f"round {round}, {table.prompts[prompt].where}, completions {made.chosen} and {made.rejected}",
            prompt_text=table.prompts[prompt].prompt_text,
        )
        known = made.win_rate_chosen is not None and made.win_rate_rejected is not None
        rows.append(PairRow(tokens=row, win_rates=(made.win_rate_chosen, made.win_rate_rejected) if known else None))  # type: ignore[arg-type]  # both are known
    return rows


def _rollouts(table: Table, round: int, numbers: Sequence[int]) -> list[RolloutRow]:
    rows = []
    for part, chunk in enumerate(parts(numbers)):
        side = answers(table, round, "policy", part, chunk)
        place = {number: i for i, number in enumerate(chunk)}
        rows += [
            RolloutRow(
                prompt_ids=tuple(table.prompts[one.prompt].prompt_ids),
                token_ids=side.completions[place[one.prompt], one.first].token_ids,
                score=one.p,
                where=f"round {round}, {table.prompts[one.prompt].where}, completion {one.first}",
            )
            for one in read_judgements(table.journal, round, part)
            if not math.isnan(one.p)
        ]
    return rows

"""What a run's journal holds, as items of the pairs browser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from nashtune.html.browser import MOST_ITEMS, Answer, Browser, Item, by_length, that_fit
from nashtune.html.prompts import Prompts
from nashtune.html.words import number
from nashtune.interfaces.oracle import Scored
from nashtune.interfaces.sampler import Completion
from nashtune.journal.records import PAIRS, read_completions, read_judgements, read_pairs, read_scores
from nashtune.journal.store import Journal

Drawn = Mapping[tuple[str, int, int], tuple[Completion, str]]  # by role, prompt and k
Scores = Mapping[tuple[str, int, int], Scored]
HELD = 8  # pages of items that are held at a time, from which one is made
ROUNDS = "of every round, as the journal has kept them"


def journal_browser(folder: Path, prompts: Prompts) -> Browser | None:
    """Pairs of a game, judgements against an opponent, or groups of rollouts; None where nothing is finished.

    Args:
        folder: The journal's.
        prompts: Where prompts' texts come from.

    Raises:
        InputError: a file of the journal is torn or was altered.
    """
    journal = Journal(folder)
    rounds = journal.rounds()
    names = {round: journal.names(round) for round in rounds}
    every = [name for round in rounds for name in names[round]]
    judged = any(name.startswith("judgements-") for name in every)
    against = judged and any(name.startswith("completions-opponent-") for name in every)
    groups: list[list[Item]] = []
    total = held = 0
    for round in rounds:
        drawn, scores = _drawn(journal, round, names[round]), _scores(journal, round, names[round])
        known = prompts.of_round(journal, round)
        texts = {key: known.get(key, f"prompt {key}") for _, key, _ in drawn}
        if against:
            items = _judgements(journal, round, names[round], drawn, scores, texts)
        elif judged or PAIRS in every:
            items = _pairs(journal, round, names[round], drawn, scores, texts)
        else:
            items = _rollouts(round, drawn, scores, texts)
        total += len(items)
        groups.append(items)
        held += len(items)
        if held > HELD * MOST_ITEMS:  # a long run's journal is larger than memory
            groups = that_fit(groups, pages=HELD // 2)
            held = sum(map(len, groups))
    shown = [item for group in that_fit(groups) for item in group]
    if not shown:
        return None
    notes = prompts.notes
    if against:
        about = f"Judgements {ROUNDS}: an answer of the policy against one of its opponent."
        return Browser("judgements", about, shown, total, "preferred", "P(policy beats opponent)", notes)
    if judged or PAIRS in every:
        return Browser("pairs", f"Pairs {ROUNDS}.", shown, total, "chosen is the", "P(chosen beats rejected)", notes)
    about = f"Rollouts {ROUNDS}: the answers to one prompt, the highest reward first."
    return Browser("groups of rollouts", about, shown, total, "best is the", "best reward", notes)


def _drawn(journal: Journal, round: int, names: list[str]) -> Drawn:
    found: dict[tuple[str, int, int], tuple[Completion, str]] = {}
    for role in ("policy", "opponent"):
        for part in _parts(names, f"completions-{role}-"):
            completions, texts = read_completions(journal, round, "policy" if role == "policy" else "opponent", part)
            found |= {(role, one.prompt, one.k): (one, text) for one, text in zip(completions, texts, strict=True)}
    return found


def _scores(journal: Journal, round: int, names: list[str]) -> Scores:
    found = [one for part in _parts(names, "scores-") for one in read_scores(journal, round, part)]
    return {(one.role, one.prompt, one.k): one for one in found}


def _parts(names: list[str], begin: str) -> list[int]:
    return sorted(int(name.removeprefix(begin)) for name in names if name.startswith(begin))


def _pairs(
    journal: Journal, round: int, names: list[str], drawn: Drawn, scores: Scores, texts: Mapping[int, str]
) -> list[Item]:
    if PAIRS not in names:
        return []
    items = []
    for prompt, pair in read_pairs(journal, round)[0]:
        keys = ("policy", prompt, pair.chosen), ("policy", prompt, pair.rejected)
        chosen, rejected = (
            _answer(label, key, drawn, scores, side)
            for label, key, side in zip(("chosen", "rejected"), keys, ("win", "loss"), strict=True)
        )
        winner = by_length(chosen.tokens or 0, rejected.tokens or 0)
        items.append(Item(round, texts[prompt], (chosen, rejected), pair.p_chosen, winner))
    return items


def _judgements(
    journal: Journal, round: int, names: list[str], drawn: Drawn, scores: Scores, texts: Mapping[int, str]
) -> list[Item]:
    items = []
    for part in _parts(names, "judgements-"):
        for one in read_judgements(journal, round, part):
            lost = math.isnan(one.p)
            winner = "no answer" if lost else "policy" if one.p > 0.5 else "opponent" if one.p < 0.5 else "tie"
            sides = {"policy": ("win", "loss"), "opponent": ("loss", "win")}.get(winner, ("", ""))
            answers = (
                _answer("policy", ("policy", one.prompt, one.first), drawn, scores, sides[0]),
                _answer("opponent", ("opponent", one.prompt, one.second), drawn, scores, sides[1]),
            )
            items.append(Item(round, texts[one.prompt], answers, None if lost else one.p, winner))
    return items


def _rollouts(round: int, drawn: Drawn, scores: Scores, texts: Mapping[int, str]) -> list[Item]:
    groups: dict[int, list[tuple[str, int, int]]] = {}
    for key in drawn:
        if key in scores:  # a round that was stopped before its rewards were known has none to show
            groups.setdefault(key[1], []).append(key)
    items = []
    for prompt, keys in groups.items():
        keys.sort(key=lambda key: -scores[key].mean)
        answers = [_answer("", key, drawn, scores, "win" if not place else "") for place, key in enumerate(keys)]
        lengths = [one.tokens or 0 for one in answers]
        winner = by_length(lengths[0], fmean(lengths[1:])) if len(lengths) > 1 else ""
        items.append(Item(round, texts[prompt], answers, scores[keys[0]].mean, winner))
    return items


def _answer(label: str, key: tuple[str, int, int], drawn: Drawn, scores: Scores, side: str) -> Answer:
    """An answer under a label; without one its reward is the label."""
    completion, text = drawn[key]
    score, told = scores.get(key), ""
    if score is not None:
        mean = number(score.mean, sign=True)
        spread = f"± {number(math.sqrt(score.variance), 2)}" if score.variance else ""
        told = f"score {mean} {spread}".strip() if label else spread
        label = label or f"reward {mean}"
    cut = "cut at the token limit" if completion.finish == "length" else ""
    return Answer(label, text, len(completion.token_ids), " · ".join(filter(None, (told, cut))), side)

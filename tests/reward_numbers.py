"""The conformance vectors of the reward losses, from the papers' equations alone, with 50 digits (see method_numbers).

Scores are given, not models: pairs by `score_chosen` and `score_rejected`, ranked lists by `scores`, best first. With a
list of numbers for each completion there is one per member of an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import mpmath
from mpmath import mpf

from method_numbers import log_sigmoid

# Right, wrong, right, and a tie.
FOUR = {"score_chosen": [1.2, 0.3, -0.5, 2.0], "score_rejected": [0.7, 0.9, -1.5, 2.0]}
MARGINS = [0.0, 0.5, 1.0, 0.25]
# The same four questions with one more clear answer, and margins of graded labels.
GRADED = {"score_chosen": [1.2, 0.3, -0.5, 0.8], "score_rejected": [0.2, 0.6, -1.5, 0.8]}
GRADES = [1.0, 1 / 3, 0.0, 1.0]
# Three members' scores of two pairs.
MEMBERS = {
    "score_chosen": [[1.0, 1.2, 0.7], [-0.5, -0.4, -0.9]],
    "score_rejected": [[0.2, 0.9, 0.1], [2.0, -1.0, 3.5]],
}
# Two prompts with three answers and with two.
RANKED = [[1.0, 0.2, -0.3], [0.5, 0.9]]
# Scores [0.5, 1.5, -0.2, 0.1] of four answers that are ranked 1, 0, 3, 2.
FOUR_RANKED = [[1.5, 0.5, 0.1, -0.2]]
# Scores [0.5, 1.2, -0.3, 0.1] of four answers of which the second is the best.
BEST_OF_FOUR = [[1.2, 0.5, -0.3, 0.1]]
# Logits of A and of B: 1.3 and 0.4 where the better answer is A, 0.8 and 0.5 where it is B; as log-probs, shifted.
BOTH_ORDERS = {"policy_chosen": [-0.7, -1.5], "policy_rejected": [-1.6, -1.2]}


def bradley_terry(chosen: Any, rejected: Any, m: Any = 0, p: Any = 1, a: Any = 0, eta: Any = 0, l2: Any = 0) -> Any:
    d = chosen - rejected - mpf(m)
    q = mpf(p) * (1 - mpf(a)) + (1 - mpf(p)) * mpf(a)
    penalty = mpf(eta) * (chosen + rejected) ** 2 + mpf(l2) / 2 * (chosen**2 + rejected**2)
    return -q * log_sigmoid(d) - (1 - q) * log_sigmoid(-d) + penalty


def all_pairs(*scores: Any, l2: Any = 0) -> Any:
    values = [bradley_terry(better, worse, l2=l2) for better, worse in combinations(scores, 2)]
    return mpmath.fsum(values) / len(values)


def plackett_luce(*scores: Any, ranks: int | None = None) -> Any:
    places = range(len(scores) - 1 if ranks is None else ranks)
    return mpmath.fsum(mpmath.log(mpmath.fsum(map(mpmath.exp, scores[k:]))) - scores[k] for k in places)


def answer(right: Any, wrong: Any, p: Any = 1, vocabulary: bool = False) -> Any:
    says, denies = (right, wrong) if vocabulary else (log_sigmoid(right - wrong), log_sigmoid(wrong - right))
    return -mpf(p) * says - (1 - mpf(p)) * denies


def value_and_slopes(loss: Callable[..., Any], at: Sequence[float]) -> tuple[Any, list[Any]]:
    point = tuple(map(mpf, at))
    orders = [tuple(int(i == j) for j in range(len(point))) for i in range(len(point))]
    return loss(*point), [mpmath.diff(loss, point, order) for order in orders]


def pair_case(
    name: str, inputs: dict[str, Any], columns: Sequence[dict[str, Any]] = (), **params: Any
) -> dict[str, Any]:
    """Pairs with one score each.

    Args:
        name: Of the case.
        inputs: As the vector gives them.
        columns: For each pair what `bradley_terry` takes besides the scores.
        params: Options of the loss.
    """
    sides = list(zip(inputs["score_chosen"], inputs["score_rejected"], strict=True))
    given = columns or [{}] * len(sides)
    found = [
        value_and_slopes(lambda good, bad, own=own: bradley_terry(good, bad, **own), side)
        for side, own in zip(sides, given, strict=True)
    ]
    expected = {
        "loss": [float(value) for value, _ in found],
        "grad_score_chosen": [float(slopes[0]) for _, slopes in found],
        "grad_score_rejected": [float(slopes[1]) for _, slopes in found],
    }
    return {"name": name, "params": {"loss": params}, "inputs": inputs, "expected": expected}


def member_case(name: str, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Pairs with one score of each member: the mean over members, each with its share of the pair."""
    losses, slopes = [], {side: [] for side in ("score_chosen", "score_rejected")}
    for i, (chosen, rejected) in enumerate(zip(inputs["score_chosen"], inputs["score_rejected"], strict=True)):
        share = inputs.get("share", [[1.0] * len(chosen)] * (i + 1))[i]
        found = [
            value_and_slopes(lambda good, bad: bradley_terry(good, bad, **options), side)
            for side in zip(chosen, rejected, strict=True)
        ]
        weights = [mpf(part) / len(chosen) for part in share]
        losses.append(float(mpmath.fsum(w * value for w, (value, _) in zip(weights, found, strict=True))))
        for k, side in enumerate(slopes):
            slopes[side].append([float(w * slope[k]) for w, (_, slope) in zip(weights, found, strict=True)])
    params = {"centring" if key == "eta" else key: value for key, value in options.items()}
    expected = {"loss": losses, **{f"grad_{side}": values for side, values in slopes.items()}}
    return {"name": name, "params": {"loss": params}, "inputs": inputs, "expected": expected}


def list_case(name: str, lists: list[list[float]], loss: Callable[..., Any], **params: Any) -> dict[str, Any]:
    found = [value_and_slopes(loss, scores) for scores in lists]
    expected = {
        "loss": [float(value) for value, _ in found],
        "grad_scores": [list(map(float, slopes)) for _, slopes in found],
    }
    return {"name": name, "params": {"loss": params}, "inputs": {"scores": lists}, "expected": expected}


def answer_case(name: str, p: Sequence[float] = (), **params: Any) -> dict[str, Any]:
    vocabulary = params.get("normalise") == "vocabulary"
    found = [
        value_and_slopes(lambda good, bad, q=q: answer(good, bad, q, vocabulary), side)
        for *side, q in zip(*BOTH_ORDERS.values(), p or [1, 1], strict=True)
    ]
    expected = {
        "loss": [float(value) for value, _ in found],
        "grad_policy_chosen": [float(slopes[0]) for _, slopes in found],
        "grad_policy_rejected": [float(slopes[1]) for _, slopes in found],
    }
    inputs = {**BOTH_ORDERS, **({"p_chosen": list(p)} if p else {})}
    return {"name": name, "params": {"loss": params}, "inputs": inputs, "expected": expected}


def reward_cases() -> dict[str, list[dict[str, Any]]]:
    """Spec name -> its cases."""
    margins = [{"m": m} for m in MARGINS]
    soft = [1.0, 0.75, 0.5, 0.0]
    everything = [{"m": m, "p": p, "a": 0.1, "eta": 0.01, "l2": 0.001} for m, p in zip(MARGINS, soft, strict=True)]
    three = [[1.0, 0.2, -0.3]]
    return {
        "reward_bt": [
            pair_case("four pairs", FOUR),
            pair_case("margin", {**FOUR, "margin": MARGINS}, margins),
            pair_case("label smoothing", FOUR, [{"a": 0.1}] * 4, label_smoothing=0.1),
            pair_case(
                "margin and centring",
                {**FOUR, "margin": MARGINS},
                [{**one, "eta": 0.01} for one in margins],
                centring=0.01,
            ),
            pair_case("soft labels", {**FOUR, "p_chosen": soft}, [{"p": p} for p in soft]),
            pair_case(
                "everything at once",
                {**FOUR, "margin": MARGINS, "p_chosen": soft},
                everything,
                label_smoothing=0.1,
                centring=0.01,
                score_l2=0.001,
            ),
            pair_case("graded pairs", GRADED),
            pair_case("graded pairs, margin", {**GRADED, "margin": GRADES}, [{"m": m} for m in GRADES]),
            pair_case("graded pairs, centring", GRADED, [{"eta": 0.01}] * 4, centring=0.01),
            pair_case("a gap of one half, both labels", {"score_chosen": [0.4, -0.1], "score_rejected": [-0.1, 0.4]}),
            member_case("three members", MEMBERS, eta=0.01),
        ],
        "reward_bt_ranked": [
            list_case("Open-Assistant's two conversations", RANKED, lambda *r: all_pairs(*r, l2=0.001), score_l2=0.001),
            list_case("three answers", three, all_pairs, score_l2=0.0),
            list_case("lists of two", [[1.2, 0.7], [0.3, 0.9], [-0.5, -1.5], [2.0, 2.0]], all_pairs, score_l2=0.0),
        ],
        "reward_pl": [
            list_case("four answers", FOUR_RANKED, plackett_luce, top_1=False),
            list_case("four answers, the best alone", FOUR_RANKED, lambda *r: plackett_luce(*r, ranks=1), top_1=True),
            list_case("best of four", BEST_OF_FOUR, lambda *r: plackett_luce(*r, ranks=1), top_1=True),
            list_case("lists of three and two", RANKED, plackett_luce, top_1=False),
        ],
        "reward_ensemble_heads": [
            member_case("three members", MEMBERS),
            member_case("in orders of their own", {**MEMBERS, "share": [[2.0, 0.0, 2.0], [0.0, 0.0, 2.0]]}),
        ],
        "preference_pm": [
            answer_case("both orders"),
            answer_case("both orders, soft labels", p=[0.9, 0.9]),
            answer_case("both orders, over the vocabulary", normalise="vocabulary"),
            answer_case("over the vocabulary, soft labels", p=[0.75, 0.75], normalise="vocabulary"),
        ],
    }

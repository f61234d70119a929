"""The conformance vectors of uncertainty-aware RLHF and of PPO against an ensemble's aggregate (see method_numbers).

Nothing of nashtune is imported: from the members' scores to gradients everything is written a second time, with 50
digits; gradients are numerical derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath
from mpmath import mpf

from method_numbers import dpo, log_sigmoid

Numbers = list[Any]
Ragged = list[list[Any]]

MEMBERS = [[0.8, -0.2, 1.5], [1.0, 0.1, -0.5], [0.9, -0.1, 2.5], [0.7, 0.2, 0.9]]
POLICY = [[-0.5, -1.2, -0.3], [-0.9, -0.4], [-0.2, -0.8, -1.1]]
REF = [[-0.7, -1.0, -0.4], [-0.6, -0.9], [-0.9, -1.0, -1.3]]
THREE: dict[str, Any] = {"policy": POLICY, "ref": REF, "members": MEMBERS}
MOVED = [[-0.4, -1.25, -0.45], [-0.6, -0.55], [-0.35, -0.7, -1.0]]
CRITIC = {
    "old_value": [[0.3, 0.4, 0.6], [0.1, 0.0], [0.5, 0.7, 0.8]],
    "value": [[0.35, 0.7, 0.55], [-0.15, 0.02], [0.55, 0.4, 0.9]],
}
PPO_INPUTS: dict[str, Any] = {"policy": MOVED, "old": POLICY, "ref": REF, "members": MEMBERS, **CRITIC}
OTHERS = [[0.2, -1.0, 0.4], [0.6, -0.4, 0.3], [-0.3, -0.9, 0.5], [0.9, -1.2, 0.1]]
SIX: dict[str, Any] = {
    "policy": [*MOVED, [-0.7, -1.3], [-2.1], [-0.4, -0.9, -0.6]],
    "old": [*POLICY, [-0.8, -1.1], [-1.9], [-0.5, -0.7, -0.75]],
    "ref": [*REF, [-1.0, -1.2], [-1.4], [-0.45, -1.1, -0.5]],
    "members": [[*row, *more] for row, more in zip(MEMBERS, OTHERS, strict=True)],
    "group": [0, 0, 0, 1, 1, 1],
}
STORIES = ([1, 5.5, 6, 6.6, 12, -1], 512, 0.15)
SECOND = ([0, 3, 7, 20], 256, 0.2)


def exact(values: Any) -> Any:
    return [exact(value) for value in values] if isinstance(values, list) else mpf(values)


def plain(values: Any) -> Any:
    return [plain(value) for value in values] if isinstance(values, list) else float(values)


def mean(values: Sequence[Any]) -> Any:
    return mpmath.fsum(values) / len(values)


def variance(values: Sequence[Any], ddof: int) -> Any:
    middle = mean(values)
    return mpmath.fsum((x - middle) ** 2 for x in values) / (len(values) - ddof)


def columns(members: list[list[float]]) -> Ragged:
    """Scores of each completion by all members."""
    return [exact(list(column)) for column in zip(*members, strict=True)]


def normalised(spread: Numbers, low: float = 0.1, high: float = 10.0, running: Any = None) -> Numbers:
    middle = mean(spread) if running is None else running
    return [min(max(x / middle, mpf(low)), mpf(high)) for x in spread]


def shaped(inputs: dict[str, Any], score: Numbers, beta: Numbers) -> Ragged:
    """Reward of each token: minus β log π_old/π_ref, plus the score on the last."""
    old, ref = exact(inputs.get("old", inputs["policy"])), exact(inputs["ref"])
    rewards = [[-b * (x - y) for x, y in zip(p, q, strict=True)] for p, q, b in zip(old, ref, beta, strict=True)]
    for row, paid in zip(rewards, score, strict=True):
        row[-1] += paid
    return rewards


def to_go(row: Numbers) -> Numbers:
    return [mpmath.fsum(row[t:]) for t in range(len(row))]


def spread_out(values: Numbers, like: Ragged) -> Ragged:
    """One value per completion on each of its tokens."""
    return [[value] * len(row) for value, row in zip(values, like, strict=True)]


def case(
    name: str, params: dict[str, Any], inputs: dict[str, Any], expected: dict[str, Any], **more: Any
) -> dict[str, Any]:
    return {"name": name, "params": params, **more, "inputs": inputs, "expected": plain_all(expected)}


def plain_all(expected: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in expected.items()}


def score_gradient(inputs: dict[str, Any], advantage: Ragged) -> dict[str, Any]:
    """REINFORCE: loss and gradient of each completion."""
    logp = exact(inputs["policy"])
    losses = [-mpmath.fsum(a * x for a, x in zip(row, p, strict=True)) for row, p in zip(advantage, logp, strict=True)]
    return {"loss": losses, "grad_policy": [[-a for a in row] for row in advantage], "advantage": advantage}


def differentiated(loss: Callable[..., Any], *points: Ragged) -> tuple[Any, list[Ragged]]:
    """A completion's loss and its derivatives with respect to each token of each argument."""
    found = []
    for which, point in enumerate(points):
        slopes = []
        for place in range(len(point)):

            def along(x: Any, which: int = which, place: int = place) -> Any:
                moved = [list(one) for one in points]
                moved[which][place] = x
                return loss(*moved)

            slopes.append(mpmath.diff(along, point[place]))
        found.append(slopes)
    return loss(*points), found


def ppo(inputs: dict[str, Any], score: Numbers, beta: Numbers) -> dict[str, Any]:
    """PPO with its defaults: GAE at gamma 1, lam .95, population whitening, clips of .2, vf_coef .1."""
    lam, eps, vf = mpf(0.95), mpf(0.2), mpf(0.1)
    old, values, old_values, policy = (exact(inputs[n]) for n in ("old", "value", "old_value", "policy"))
    advantage: Ragged = []
    for rewards, critic in zip(shaped(inputs, score, beta), old_values, strict=True):
        row: Numbers = []
        following, later = mpf(0), mpf(0)
        for reward, value in zip(reversed(rewards), reversed(critic), strict=True):
            later = reward + following - value + lam * later
            following = value
            row.insert(0, later)
        advantage.append(row)
    target = [
        [a + v for a, v in zip(row, critic, strict=True)] for row, critic in zip(advantage, old_values, strict=True)
    ]
    flat = [a for row in advantage for a in row]
    middle, scale = mean(flat), mpmath.sqrt(variance(flat, 0) + mpf(1e-8))
    white = [[(a - middle) / scale for a in row] for row in advantage]
    losses, grad_policy, grad_value = [], [], []
    for i in range(len(policy)):

        def loss(now: Numbers, critic: Numbers, i: int = i) -> Any:
            total = mpf(0)
            for t, a in enumerate(white[i]):
                ratio = mpmath.exp(now[t] - old[i][t])
                held = min(max(critic[t], old_values[i][t] - eps), old_values[i][t] + eps)
                total += max(-a * ratio, -a * min(max(ratio, 1 - eps), 1 + eps))
                total += vf * max((critic[t] - target[i][t]) ** 2, (held - target[i][t]) ** 2) / 2
            return total

        value, (by_policy, by_critic) = differentiated(loss, policy[i], values[i])
        losses.append(value)
        grad_policy.append(by_policy)
        grad_value.append(by_critic)
    return {
        "loss": losses,
        "grad_policy": grad_policy,
        "grad_value": grad_value,
        "advantage": white,
        "target": target,
    }


def rloo(inputs: dict[str, Any], score: Numbers, beta: Numbers) -> dict[str, Any]:
    """RLOO: leave-one-out advantages, clipped ratio of the whole completion."""
    total = [mpmath.fsum(row) for row in shaped(inputs, score, beta)]
    groups = inputs["group"]
    advantage = [
        total[i] - mean([total[j] for j in range(len(total)) if groups[j] == groups[i] and j != i])
        for i in range(len(total))
    ]
    policy, old = exact(inputs["policy"]), exact(inputs["old"])
    losses, grads = [], []
    for i, a in enumerate(advantage):

        def loss(now: Numbers, i: int = i, a: Any = a) -> Any:
            ratio = mpmath.exp(mpmath.fsum(now) - mpmath.fsum(old[i]))
            return max(-a * ratio, -a * min(max(ratio, 1 - mpf(0.2)), 1 + mpf(0.2)))

        value, (slopes,) = differentiated(loss, policy[i])
        losses.append(value)
        grads.append(slopes)
    return {"loss": losses, "grad_policy": grads, "advantage": spread_out(advantage, policy)}


def centred(score: Numbers, groups: list[int]) -> Numbers:
    return [
        x - mean([y for y, g in zip(score, groups, strict=True) if g == own])
        for x, own in zip(score, groups, strict=True)
    ]


def _aware(inputs: dict[str, Any]) -> tuple[Numbers, Numbers, dict[str, Any]]:
    """Mean, v and what every case shows of the ensemble."""
    scores = columns(inputs["members"])
    reward, spread = [mean(row) for row in scores], [variance(row, 1) for row in scores]
    v = normalised(spread)
    return reward, v, {"variance": spread, "v": v, "beta": [mpf(0.1) * x for x in v]}


def _reinforce(**args: Any) -> dict[str, Any]:
    return {"name": "reinforce", **args}


def aware_cases() -> list[dict[str, Any]]:
    """`uncertainty_rlhf`."""
    reward, v, shown = _aware(THREE)
    tenth = mpf(0.1)
    h = [mpmath.fsum(a) - mpmath.fsum(b) for a, b in zip(exact(POLICY), exact(REF), strict=True)]
    raw = shown["variance"]
    wide = normalised(raw, 0.0, 100.0)

    def returned(name: str, kl: dict[str, Any], returns: Numbers, **show: Any) -> dict[str, Any]:
        expected = {**score_gradient(THREE, spread_out(returns, POLICY)), **show}
        return case(name, {"loss": _reinforce(baseline="none"), "kl": kl}, THREE, expected)

    total = [r - tenth * x * y for r, x, y in zip(reward, v, h, strict=True)]
    against_mean = [x - mean(total) for x in total]
    token_returns = [to_go(row) for row in shaped(THREE, reward, shown["beta"])]
    precise = [x / y - tenth * z for x, y, z in zip(centred(reward, [0, 0, 0]), v, h, strict=True)]
    cases = [
        returned(
            "shaped return, v = 1 (vanilla)",
            {"name": "fixed", "beta": 0.1},
            [r - tenth * y for r, y in zip(reward, h, strict=True)],
            score=reward,
        ),
        returned(
            "shaped return, v = variance",
            {"normalise": "none"},
            [r - tenth * x * y for r, x, y in zip(reward, raw, h, strict=True)],
            v=raw,
            variance=raw,
        ),
        returned(
            "shaped return, v not clipped",
            {"v_min": 0.0, "v_max": 100.0},
            [r - tenth * x * y for r, x, y in zip(reward, wide, h, strict=True)],
            v=wide,
            variance=raw,
        ),
        returned("shaped return, v clipped", {}, total, **shown, clipped=[1.0, 1.0, 0.0]),
        returned(
            "exact: R - beta v (h + 1)",
            {"variant": "exact"},
            [x - tenth * y for x, y in zip(total, v, strict=True)],
            **shown,
        ),
        returned("precision: R centred, divided by v", {"variant": "precision"}, precise, beta=tenth, v=v),
        case(
            "REINFORCE against the batch mean",
            {"loss": _reinforce(baseline="batch_mean")},
            THREE,
            {**score_gradient(THREE, spread_out(against_mean, POLICY)), **shown},
        ),
        case(
            "token rewards: returns from each token on",
            {"loss": _reinforce(baseline="none", returns="to_go")},
            THREE,
            score_gradient(THREE, token_returns),
        ),
        _penalty_in_loss(v, raw),
    ]
    reward, v, shown = _aware(PPO_INPUTS)
    one = [mpf(0.1)] * 3
    cases += [
        case("PPO", {}, PPO_INPUTS, {**ppo(PPO_INPUTS, reward, shown["beta"]), **shown}),
        case(
            "PPO, exact",
            {"kl": {"variant": "exact"}},
            PPO_INPUTS,
            ppo(PPO_INPUTS, [r - b for r, b in zip(reward, shown["beta"], strict=True)], shown["beta"]),
        ),
        _constant("PPO, one variance for all is plain PPO", PPO_INPUTS, ppo, reward, one),
        _after_rounds(reward),
    ]
    return cases


def _penalty_in_loss(v: Numbers, spread: Numbers) -> dict[str, Any]:
    """Scores of 0, so that the penalty is all that is left."""
    policy, ref = exact(POLICY), exact(REF)
    losses, grads = [], []
    for i, x in enumerate(v):

        def loss(now: Numbers, i: int = i, v: Any = x) -> Any:
            ratios = [a - b for a, b in zip(now, ref[i], strict=True)]
            return mpf(0.1) * v * mpmath.fsum(mpmath.exp(-x) - 1 + x for x in ratios)

        value, (slopes,) = differentiated(loss, policy[i])
        losses.append(value)
        grads.append(slopes)
    params = {"loss": _reinforce(baseline="none", kl_in="loss", kl_estimator="k3")}
    inputs = {"policy": POLICY, "ref": REF, "score": [0.0, 0.0, 0.0], "variance": plain(spread)}
    return case("the penalty in the loss, k3", params, inputs, {"loss": losses, "grad_policy": grads})


def _constant(
    name: str, inputs: dict[str, Any], method: Callable[..., Any], reward: Numbers, beta: Numbers
) -> dict[str, Any]:
    given = {key: value for key, value in inputs.items() if key != "members"}
    given |= {"score": plain(reward), "variance": [0.3] * len(reward)}
    return case(name, {}, given, {**method(inputs, exact(plain(reward)), beta), "v": [1.0] * len(reward)})


def _after_rounds(reward: Numbers) -> dict[str, Any]:
    """A running mean of two rounds, .99 of the old one."""
    first, second = mpf(0.5), mpf(2.0)
    running = first + (1 - mpf(0.99)) * (second - first)
    spread = [variance(row, 1) for row in columns(MEMBERS)]
    betas = [[mpf(0.1) * x for x in normalised(spread, running=r)] for r in (first, running)]
    rounds = [{"variance": 0.5, "completions": 3}, {"variance": 2.0, "completions": 3}]
    expected = {**ppo(PPO_INPUTS, reward, betas[1]), "beta": betas[1], "beta_rounds": betas}
    return case("PPO, after two rounds", {}, PPO_INPUTS, expected, rounds=rounds)


def rloo_cases() -> list[dict[str, Any]]:
    """`uncertainty_rlhf_rloo`."""
    reward, v, shown = _aware(SIX)
    precise = [x / y for x, y in zip(centred(reward, SIX["group"]), v, strict=True)]
    less = [r - b for r, b in zip(reward, shown["beta"], strict=True)]
    one = [mpf(0.1)] * 6
    return [
        case("two prompts", {}, SIX, {**rloo(SIX, reward, shown["beta"]), **shown}),
        case("exact", {"kl": {"variant": "exact"}}, SIX, {**rloo(SIX, less, shown["beta"]), "score": less}),
        case("precision", {"kl": {"variant": "precision"}}, SIX, {**rloo(SIX, precise, one), "score": precise}),
        _constant("one variance for all is plain RLOO", SIX, rloo, reward, one),
    ]


def pairwise_cases() -> list[dict[str, Any]]:
    """`uncertainty_rlhf_pairwise`: the pairs 1 > 2, 3 > 2 and 1 > 3 of the three completions."""
    won, lost = [0, 2, 0], [1, 1, 2]
    spread = [variance(row, 1) for row in columns(MEMBERS)]
    inputs = {
        f"{name}_{side}": [plain(mpmath.fsum(exact(part[i]))) for i in picked]
        for name, part in (("policy", POLICY), ("ref", REF))
        for side, picked in (("chosen", won), ("rejected", lost))
    }
    varied = inputs | {f"variance_{s}": [plain(spread[i]) for i in p] for s, p in (("chosen", won), ("rejected", lost))}

    def pairs(betas: Sequence[tuple[Any, Any]], p: Sequence[float] = (1.0, 1.0, 1.0)) -> dict[str, Any]:
        losses, by_chosen, by_rejected = [], [], []
        for i, (beta_w, beta_l) in enumerate(betas):
            rw, rl = mpf(inputs["ref_chosen"][i]), mpf(inputs["ref_rejected"][i])

            def loss(
                lw: Any, ll: Any, w: Any = beta_w, u: Any = beta_l, rw: Any = rw, rl: Any = rl, q: Any = p[i]
            ) -> Any:
                margin = w * (lw - rw) - u * (ll - rl)
                return -mpf(q) * log_sigmoid(margin) - (1 - mpf(q)) * log_sigmoid(-margin)

            at = (mpf(inputs["policy_chosen"][i]), mpf(inputs["policy_rejected"][i]))
            losses.append(loss(*at))
            by_chosen.append(mpmath.diff(loss, at, (1, 0)))
            by_rejected.append(mpmath.diff(loss, at, (0, 1)))
        return {"loss": losses, "grad_policy_chosen": by_chosen, "grad_policy_rejected": by_rejected}

    v = normalised(spread)
    sides = [(mpf(0.1) * v[i], mpf(0.1) * v[j]) for i, j in zip(won, lost, strict=True)]
    equal = [(mpf(0.1), mpf(0.1))] * 3
    half = normalised(spread, running=mpf(0.5))
    after = [(mpf(0.1) * half[i], mpf(0.1) * half[j]) for i, j in zip(won, lost, strict=True)]
    same = inputs | {"variance_chosen": [0.3] * 3, "variance_rejected": [0.3] * 3}
    labels = [1.0, 0.8, 0.4]
    rounds = [{"variance": 0.5, "completions": 6}]
    plain_dpo = [
        dpo(*(mpf(inputs[n][i]) for n in ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")), 0.1)
        for i in range(3)
    ]
    assert all(abs(a - b) < mpf(10) ** -40 for a, b in zip(plain_dpo, pairs(equal)["loss"], strict=True))
    return [
        case("three pairs", {}, varied, {**pairs(sides), "beta": [list(one) for one in sides]}),
        case("v = 1 is DPO", {"kl": {"name": "fixed", "beta": 0.1}}, inputs, pairs(equal)),
        case("one variance for all is DPO", {}, same, pairs(equal)),
        case("soft labels", {}, varied | {"p_chosen": labels}, pairs(sides, labels)),
        case("after a round", {}, varied, pairs(after), rounds=rounds),
    ]


def aggregate_cases(rule: str) -> list[dict[str, Any]]:
    """`ppo_uwo` and `ppo_lcb`: PPO with the aggregate as score, and the adaptive controller beside it."""
    scores = columns(MEMBERS)

    def of(penalty: float, ddof: int) -> Numbers:
        spread = [variance(row, ddof) for row in scores]
        taken = spread if rule == "uwo" else [mpmath.sqrt(x) for x in spread]
        return [mean(row) - mpf(penalty) * x for row, x in zip(scores, taken, strict=True)]

    def one(name: str, params: dict[str, Any], score: Numbers, beta: float = 0.05, **more: Any) -> dict[str, Any]:
        show = {"score": score, **more.pop("show", {})}
        return case(name, params, PPO_INPUTS, {**ppo(PPO_INPUTS, score, [mpf(beta)] * 3), **show}, **more)

    default = {"uwo": 0.1, "lcb": 1.0}[rule]
    cases = [
        one("three completions", {}, of(default, 0)),
        one("penalty 0.5, ddof 1", {"oracle": {"penalty": 0.5, "ddof": 1}}, of(0.5, 1)),
        one("penalty 0 is the mean", {"oracle": {"penalty": 0.0}}, of(0.0, 0)),
    ]
    for kls, completions, beta in (STORIES, SECOND):
        betas = adaptive(kls, completions, beta)
        rounds = [{"kl": kl, "completions": completions} for kl in kls]
        params = {"kl": {"name": "adaptive", "beta": beta, "target": 6.0, "horizon": 10000.0}}
        name = f"adaptive KL, {completions} completions a round"
        cases.append(one(name, params, of(default, 0), betas[-1], rounds=rounds, show={"beta_rounds": betas}))
    betas = adaptive(STORIES[0], 512, 0.15, gain=0.1)
    params = {"kl": {"name": "adaptive", "beta": 0.15, "target": 6.0, "gain": "constant"}}
    rounds = [{"kl": kl, "completions": 512} for kl in STORIES[0]]
    cases.append(
        one("adaptive KL, constant gain", params, of(default, 0), betas[-1], rounds=rounds, show={"beta_rounds": betas})
    )
    return cases


def adaptive(kls: Sequence[float], completions: int, beta: float, gain: float | None = None) -> Numbers:
    """Ziegler's sequence of β."""
    now, found = mpf(beta), []
    for kl in kls:
        error = min(max(mpf(kl) / 6 - 1, -mpf(0.2)), mpf(0.2))
        now *= 1 + error * (mpf(completions) / 10000 if gain is None else mpf(gain))
        found.append(now)
    return found


def uncertainty_cases() -> dict[str, list[dict[str, Any]]]:
    """Spec name -> cases."""
    return {
        "uncertainty_rlhf": aware_cases(),
        "uncertainty_rlhf_rloo": rloo_cases(),
        "uncertainty_rlhf_pairwise": pairwise_cases(),
        "ppo_uwo": aggregate_cases("uwo"),
        "ppo_lcb": aggregate_cases("lcb"),
    }

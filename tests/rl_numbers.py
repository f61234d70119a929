"""The numbers of the policy-gradient methods, from their equations with 50 digits, one completion and token at a time.

Nothing here is nashtune's: lists of lists, loops, closed-form derivatives. `method_numbers.py` writes the vector files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath
from mpmath import mpf

Rows = list[list[Any]]

# Two completions of four and three tokens.
OLD = [[-1.20, -0.70, -2.10, -0.40], [-0.90, -1.60, -0.30]]
REF = [[-1.00, -0.90, -2.00, -0.50], [-1.10, -1.20, -0.35]]
NEW = [[-1.10, -0.40, -2.40, -0.40], [-1.00, -1.30, -0.25]]
VALUE = [[0.10, 0.30, 0.20, 0.50], [-0.20, 0.00, 0.40]]
VALUE_NOW = [[0.40, 0.25, 0.15, 0.80], [-0.10, -0.30, 0.45]]
SCORE = [1.5, -0.5]
BASE = {"policy": NEW, "ref": REF, "old": OLD, "score": SCORE}
CRITIC = {"old_value": VALUE, "value": VALUE_NOW}
# Two prompts of four completions, of one token each; policy, old and reference agree.
GROUPS = [[1.0, 0.0, 0.5, 2.0], [-1.0, -1.0, 3.0, 1.0]]
SINGLE = [[-0.5], [-1.0], [-0.25], [-2.0], [-0.75], [-1.5], [-0.1], [-3.0]]
GROUPED = {
    **dict.fromkeys(("policy", "ref", "old"), SINGLE),
    "score": [*GROUPS[0], *GROUPS[1]],
    "group": [7, 7, 7, 7, 3, 3, 3, 3],
}


def rows(values: Rows) -> Rows:
    return [[mpf(x) for x in row] for row in values]


def each(fn: Callable[..., Any], *columns: Rows) -> Rows:
    """`fn` of the numbers of every token."""
    return [[fn(*part) for part in zip(*row, strict=True)] for row in zip(*columns, strict=True)]


def plain(value: Any) -> Any:
    return [plain(one) for one in value] if isinstance(value, list) else float(value)


def flat(values: Rows) -> list[Any]:
    return [x for row in values for x in row]


def mean(values: Sequence[Any]) -> Any:
    return mpmath.fsum(values) / len(values)


def variance(values: Sequence[Any], correction: int) -> Any:
    centre = mean(values)
    return mpmath.fsum((x - centre) ** 2 for x in values) / (len(values) - correction)


def kl(d: Any, estimator: str) -> Any:
    return {"k1": d, "k2": d * d / 2, "k3": mpmath.exp(-d) - 1 + d}[estimator]


def kl_slope(d: Any, estimator: str) -> Any:
    return {"k2": d, "k3": 1 - mpmath.exp(-d)}[estimator]


def whitened(values: Rows, correction: int | None, over: list[Any] | None = None, keep: bool = False) -> Rows:
    if correction is None:
        return values
    sample = flat(values) if over is None else over
    centre, scale = mean(sample), mpmath.sqrt(variance(sample, correction) + mpf("1e-8"))
    return [[(x - centre) / scale + (centre if keep else 0) for x in row] for row in values]


def surrogate(log_ratio: Any, advantage: Any, clip: Any) -> tuple[Any, Any, bool]:
    """Loss, its derivative with respect to the log-ratio, and whether the clipped branch is the larger."""
    rho = mpmath.exp(log_ratio)
    held = min(max(rho, 1 - mpf(clip)), 1 + mpf(clip))
    free, kept = -advantage * rho, -advantage * held
    return max(free, kept), (mpf(0) if kept > free else free), kept > free


def critic(now: Any, old: Any, target: Any, clip: Any) -> tuple[Any, Any]:
    """Half the squared error and its derivative."""
    held = min(max(now, old - mpf(clip)), old + mpf(clip))
    if (held - target) ** 2 > (now - target) ** 2:
        return (held - target) ** 2 / 2, (now - target if held == now else mpf(0))
    return (now - target) ** 2 / 2, now - target


def gae(reward: Rows, value: Rows, gamma: Any, lam: Any) -> Rows:
    found = []
    for r, v in zip(reward, value, strict=True):
        ahead, following, row = mpf(0), mpf(0), []
        for t in range(len(r) - 1, -1, -1):
            ahead = r[t] + gamma * following - v[t] + gamma * lam * ahead
            following = v[t]
            row.insert(0, ahead)
        found.append(row)
    return found


def ppo_case(
    name: str,
    *,
    beta: float = 0.1,
    gamma: float = 1.0,
    lam: float = 0.95,
    clip: float = 0.2,
    vf_coef: float = 0.1,
    estimator: str = "k1",
    kl_in: str = "reward",
    advantages: str = "population",
    rewards: str = "none",
    policy: Rows = NEW,
    values: dict[str, Rows] | None = None,
    extra: dict[str, Any] | None = None,
    loss: dict[str, Any] | None = None,
    scored: Sequence[float] = SCORE,
) -> dict[str, Any]:
    """A case of PPO; `extra` and `loss` are inputs and options whose effect is `scored`, the scores they lead to."""
    critics = CRITIC if values is None else values
    correction = {"none": None, "population": 0, "bessel": 1}
    d = each(lambda a, b: a - b, rows(OLD), rows(REF))
    reward = each(lambda x: -mpf(beta) * kl(x, estimator) if kl_in == "reward" else mpf(0), d)
    for row, score in zip(reward, scored, strict=True):
        row[-1] += mpf(score)
    unwhitened = reward
    reward = whitened(reward, correction[rewards], keep=True)
    old_value, value = rows(critics["old_value"]), rows(critics["value"])
    raw = gae(reward, old_value, mpf(gamma), mpf(lam))
    target = each(lambda a, v: a + v, raw, old_value)
    advantage = whitened(raw, correction[advantages])
    pieces = each(lambda n, o, a: surrogate(n - o, a, clip), rows(policy), rows(OLD), advantage)
    errors = each(lambda *x: critic(*x, mpf("0.2")), value, old_value, target)
    ratio = each(lambda n, r: n - r, rows(policy), rows(REF))
    penalty = each(lambda x: mpf(beta) * kl(x, estimator) if kl_in == "loss" else mpf(0), ratio)
    slope = each(lambda x: mpf(beta) * kl_slope(x, estimator) if kl_in == "loss" else mpf(0), ratio)
    total = each(lambda p, e, k: p[0] + mpf(vf_coef) * e[0] + k, pieces, errors, penalty)
    grad_policy = each(lambda p, k: p[1] + k, pieces, slope)
    grad_value = each(lambda e: mpf(vf_coef) * e[1], errors)
    count = len(flat(total))
    spread = variance(flat(target), 0)
    left = variance(flat(raw), 0)
    expected = {
        "loss": [mpmath.fsum(row) for row in total],
        "grad_policy": grad_policy,
        "grad_value": grad_value,
        "objective": mean(flat(total)),
        "grad_objective_policy": each(lambda x: x / count, grad_policy),
        "grad_objective_value": each(lambda x: x / count, grad_value),
        "advantage": advantage,
        "target": target,
        "return": [mpmath.fsum(row) for row in unwhitened],
        "mean_policy_loss": mean([p[0] for p in flat(pieces)]),
        "mean_value_loss": mean([e[0] for e in flat(errors)]),
        "mean_clip_fraction": mean([mpf(p[2]) for p in flat(pieces)]),
        "mean_approx_kl": mean([(n - o) ** 2 / 2 for n, o in zip(flat(rows(policy)), flat(rows(OLD)), strict=True)]),
        "explained_variance": 1 - left / spread,
    }
    options = {
        "gamma": gamma,
        "lam": lam,
        "clip": clip,
        "vf_coef": vf_coef,
        "kl_in": kl_in,
        "kl_estimator": estimator,
        "whiten_advantages": advantages,
        "whiten_rewards": rewards,
        **(loss or {}),
    }
    inputs = {**BASE, "policy": policy, **critics, **(extra or {})}
    return {
        "name": name,
        "params": {"loss": options, "kl": {"name": "fixed", "beta": beta}},
        "inputs": inputs,
        "expected": {key: plain(value) for key, value in expected.items()},
    }


def after_eos_case(name: str) -> dict[str, Any]:
    """The second completion ended: its score comes on a state of its own, of value 0.25 before and 0.4 now."""
    beta, lam, end, now = mpf("0.1"), mpf("0.95"), mpf("0.25"), mpf("0.4")
    d = each(lambda a, b: a - b, rows(OLD), rows(REF))
    reward = each(lambda x: -beta * x, d)
    reward[0][-1] += mpf(SCORE[0])
    value = rows(VALUE)
    slot = mpf(SCORE[1]) - end
    raw = gae([reward[0], [*reward[1], mpf(SCORE[1])]], [value[0], [*value[1], end]], mpf(1), lam)
    assert raw[1][3] == slot
    raw[1].pop()
    target = each(lambda a, v: a + v, raw, value)
    advantage = whitened(raw, 1)
    pieces = each(lambda n, o, a: surrogate(n - o, a, 0.2), rows(NEW), rows(OLD), advantage)
    errors = each(lambda *x: critic(*x, mpf("0.2")), rows(VALUE_NOW), value, target)
    last, last_slope = critic(now, end, mpf(SCORE[1]), mpf("0.2"))
    sums = [
        mpmath.fsum(p[0] + mpf("0.1") * e[0] for p, e in zip(*pair, strict=True))
        for pair in zip(pieces, errors, strict=True)
    ]
    sums[1] += mpf("0.1") * last
    expected = {
        "loss": sums,
        "grad_policy": each(lambda p: p[1], pieces),
        "grad_value": each(lambda e: mpf("0.1") * e[1], errors),
        "grad_value_end": [mpf(0), mpf("0.1") * last_slope],
        "objective": mpmath.fsum(sums) / 7,
        "advantage": advantage,
        "target": target,
    }
    return {
        "name": name,
        "params": {
            "loss": {"score_at": "after_eos", "whiten_advantages": "bessel"},
            "kl": {"name": "fixed", "beta": 0.1},
        },
        "inputs": {
            **BASE,
            **CRITIC,
            "finished": [False, True],
            "old_value_end": [0.0, 0.25],
            "value_end": [0.0, 0.4],
        },
        "expected": {key: plain(value) for key, value in expected.items()},
    }


def rewards_case(name: str, estimator: str, rewards: str, *, zero_score: bool = False) -> dict[str, Any]:
    """Without a critic and without a future the advantages are the rewards of the tokens."""
    zeros = [[0.0] * 4, [0.0] * 3]
    scored = [0.0, 0.0] if zero_score else SCORE
    case = ppo_case(
        name,
        gamma=0.0,
        lam=0.0,
        estimator=estimator,
        advantages="none",
        rewards=rewards,
        values={"old_value": zeros, "value": zeros},
        scored=scored,
        extra={"score": scored},
    )
    kept = ("advantage", "loss", "grad_policy", "return")
    return {**case, "expected": {key: case["expected"][key] for key in kept}}


def ppo_cases() -> list[dict[str, Any]]:
    unfinished = {"extra": {"finished": [True, False]}}
    return [
        ppo_case("two completions"),
        ppo_case("Bessel's variance", advantages="bessel"),
        ppo_case("without whitening", advantages="none"),
        ppo_case("rewards whitened too", rewards="population"),
        ppo_case("before the first step", policy=OLD, values={"old_value": VALUE, "value": VALUE}),
        ppo_case("k3 in the loss", kl_in="loss", estimator="k3"),
        ppo_case("k2 in the loss, discounted", kl_in="loss", estimator="k2", gamma=0.9, beta=0.5),
        ppo_case("no EOS: another score", loss={"no_eos_score": -1.0}, scored=[1.5, -1.0], **unfinished),
        ppo_case("no EOS: a penalty", loss={"no_eos_penalty": 0.75}, scored=[1.5, -1.25], **unfinished),
        after_eos_case("the score after EOS"),
        rewards_case("rewards of the tokens, k1", "k1", "none"),
        rewards_case("rewards whitened, population", "k1", "population"),
        rewards_case("rewards whitened, Bessel", "k1", "bessel"),
        rewards_case("k2 in the reward", "k2", "none", zero_score=True),
        rewards_case("k3 in the reward", "k3", "none", zero_score=True),
    ]


def leave_one_out(rewards: Sequence[Any]) -> list[Any]:
    return [r - (mpmath.fsum(rewards) - r) / (len(rewards) - 1) for r in rewards]


def by_group(fn: Callable[[list[Any]], list[Any]], groups: Rows = GROUPS) -> list[Any]:
    return [x for group in groups for x in fn([mpf(r) for r in group])]


def single(
    name: str, advantage: list[Any], loss: dict[str, Any], *, ratio: bool, inputs: dict[str, Any] = GROUPED
) -> dict[str, Any]:
    """One token a completion, policy = old = ref: the loss is -A (with a ratio) or -A log pi, its slope -A."""
    values = [-a if ratio else -a * mpf(row[0]) for a, row in zip(advantage, inputs["policy"], strict=True)]
    expected = {"loss": values, "grad_policy": [[-a] for a in advantage], "advantage": [[a] for a in advantage]}
    return {
        "name": name,
        "params": {"loss": loss},
        "inputs": inputs,
        "expected": {key: plain(value) for key, value in expected.items()},
    }


def equal_groups_inputs() -> dict[str, Any]:
    return {**GROUPED, "score": [0.1, 0.1, 0.1, 0.1, *GROUPS[1]]}


def rloo_sequence(
    name: str, beta: float, scores: list[float], *, kl_in: str = "reward", ref: Rows = OLD
) -> dict[str, Any]:
    """Two completions of one prompt, clipped ratio of each as a whole."""
    d = each(lambda a, b: a - b, rows(OLD), rows(ref))
    penalty = [mpf(beta) * mpmath.fsum(row) if kl_in == "reward" else mpf(0) for row in d]
    advantage = leave_one_out([mpf(s) - p for s, p in zip(scores, penalty, strict=True)])
    now = each(lambda a, b: a - b, rows(NEW), rows(ref))
    values, slopes = [], []
    for new, old, a, row in zip(rows(NEW), rows(OLD), advantage, now, strict=True):
        value, slope, _ = surrogate(mpmath.fsum(new) - mpmath.fsum(old), a, 0.2)
        inside = kl_in == "loss"
        values.append(value + (mpf(beta) * mpmath.fsum(kl(x, "k3") for x in row) if inside else 0))
        slopes.append([slope + (mpf(beta) * kl_slope(x, "k3") if inside else 0) for x in row])
    expected = {
        "loss": values,
        "grad_policy": slopes,
        "objective": mean(values),
        "grad_objective_policy": [[x / 2 for x in row] for row in slopes],
        "ratio": [mpmath.exp(mpmath.fsum(n) - mpmath.fsum(o)) for n, o in zip(rows(NEW), rows(OLD), strict=True)],
        "advantage": [[a] * len(row) for a, row in zip(advantage, NEW, strict=True)],
    }
    options = {"kl_in": kl_in, "kl_estimator": "k1" if kl_in == "reward" else "k3"}
    return {
        "name": name,
        "params": {"loss": options, "kl": {"name": "fixed", "beta": beta}},
        "inputs": {"policy": NEW, "ref": ref, "old": OLD, "score": scores, "group": [0, 0]},
        "expected": {key: plain(value) for key, value in expected.items()},
    }


def rloo_cases() -> list[dict[str, Any]]:
    equal = [mpf(0)] * 4 + leave_one_out([mpf(r) for r in GROUPS[1]])
    return [
        single("two prompts of four", by_group(leave_one_out), {}, ratio=True),
        {
            **(case := single("one prompt of equals", equal, {}, ratio=True, inputs=equal_groups_inputs())),
            "expected": {**case["expected"], "equal_groups": 1.0},
        },
        rloo_sequence("clipped ratio of the completion", 0.1, [0.8, 0.0]),
        rloo_sequence("the KL penalty in the reward", 0.1, SCORE, ref=REF),
        rloo_sequence("k3 in the loss", 0.1, SCORE, ref=REF, kl_in="loss"),
    ]


def standardised(rewards: list[Any], correction: int, epsilon: str) -> list[Any]:
    scale = mpmath.sqrt(variance(rewards, correction)) + mpf(epsilon)
    return [(r - mean(rewards)) / scale for r in rewards]


def grpo_tokens(name: str, reduction: str, estimator: str = "k3") -> dict[str, Any]:
    """Advantages 0.8 and -0.8, β 0.04."""
    beta = mpf("0.04")
    advantage = [[mpf("0.8")] * 4, [mpf("-0.8")] * 3]
    pieces = each(lambda n, o, a: surrogate(n - o, a, 0.2), rows(NEW), rows(OLD), advantage)
    d = each(lambda n, r: n - r, rows(NEW), rows(REF))
    token = each(lambda p, x: p[0] + beta * kl(x, estimator), pieces, d)
    slope = each(lambda p, x: p[1] + beta * kl_slope(x, estimator), pieces, d)
    divisor = {"grpo": [mpf(4), mpf(3)], "dapo": [mpf(1), mpf(1)], "dr_grpo": [mpf(4), mpf(4)]}[reduction]
    values = [mpmath.fsum(row) / n for row, n in zip(token, divisor, strict=True)]
    slopes = [[x / n for x in row] for row, n in zip(slope, divisor, strict=True)]
    whole = mpf(7) if reduction == "dapo" else mpf(2)
    expected = {
        "loss": values,
        "grad_policy": slopes,
        "objective": mpmath.fsum(values) / whole,
        "grad_objective_policy": [[x / whole for x in row] for row in slopes],
        "mean_clip_fraction": mean([mpf(p[2]) for p in flat(pieces)]),
    }
    options: dict[str, Any] = {"scale": "none", "reduction": reduction, "kl_estimator": estimator}
    if reduction == "dr_grpo":
        options["max_length"] = 4
    return {
        "name": name,
        "params": {"loss": options, "kl": {"name": "fixed", "beta": 0.04}},
        "inputs": {**BASE, "score": [1.6, 0.0], "group": [0, 0]},
        "expected": {key: plain(value) for key, value in expected.items()},
    }


def grpo_cases() -> list[dict[str, Any]]:
    sample = by_group(lambda r: standardised(r, 1, "1e-4"))
    population = by_group(lambda r: standardised(r, 0, "0"))
    equal = [mpf(0)] * 4 + standardised([mpf(r) for r in GROUPS[1]], 1, "1e-4")
    case = single("one prompt of equals", equal, {}, ratio=True, inputs=equal_groups_inputs())
    return [
        single("two prompts of four", sample, {}, ratio=True),
        single("the population's deviation", population, {"std": "population", "std_epsilon": 0.0}, ratio=True),
        {**case, "expected": {**case["expected"], "equal_groups": 1.0}},
        grpo_tokens("mean of means", "grpo"),
        grpo_tokens("mean over all tokens", "dapo"),
        grpo_tokens("divided by the longest", "dr_grpo"),
        grpo_tokens("k2 in the loss", "grpo", "k2"),
    ]


ARMS = {
    "policy": [[-0.5, -1.2, -0.3], [-0.9, -0.4], [-0.2, -0.8, -1.1]],
    "ref": [[-0.7, -1.0, -0.4], [-0.6, -0.9], [-0.9, -1.0, -1.3]],
    "score": [0.85, 0.0, 1.1],
}


def reinforce_tokens(
    name: str, advantage: Rows, loss: dict[str, Any], inputs: dict[str, Any], beta: float = 0.1
) -> dict[str, Any]:
    values = [
        -mpmath.fsum(a * p for a, p in zip(*pair, strict=True))
        for pair in zip(advantage, rows(inputs["policy"]), strict=True)
    ]
    expected = {
        "loss": values,
        "grad_policy": each(lambda a: -a, advantage),
        "advantage": advantage,
        "objective": mean(values),
    }
    return {
        "name": name,
        "params": {"loss": loss, "kl": {"name": "fixed", "beta": beta}},
        "inputs": inputs,
        "expected": {key: plain(value) for key, value in expected.items()},
    }


def reinforce_cases() -> list[dict[str, Any]]:
    d = each(lambda a, b: a - b, rows(ARMS["policy"]), rows(ARMS["ref"]))
    total = [mpf(s) - mpf("0.1") * mpmath.fsum(row) for s, row in zip(ARMS["score"], d, strict=True)]
    centred = [[r - mean(total)] * len(row) for r, row in zip(total, d, strict=True)]
    two = {"policy": NEW, "ref": OLD, "old": OLD, "score": [0.8, 0.0], "group": [0, 0]}
    group_centred = by_group(lambda r: [x - mean(r) for x in r])
    scale = mpmath.sqrt(variance(group_centred, 1)) + mpf("1e-8")
    reward = each(lambda a, b: -mpf("0.1") * (a - b), rows(OLD), rows(REF))
    for row, score in zip(reward, SCORE, strict=True):
        row[-1] += mpf(score)
    to_go = [[mpmath.fsum(row[t:]) for t in range(len(row))] for row in reward]
    plus = {"baseline": "none", "returns": "to_go"}
    return [
        reinforce_tokens("three completions", centred, {}, ARMS),
        reinforce_tokens("leave-one-out", [[mpf("0.8")] * 4, [mpf("-0.8")] * 3], {"baseline": "leave_one_out"}, two),
        reinforce_tokens("returns to go", to_go, plus, BASE),
        reinforce_tokens("REINFORCE++", whitened(to_go, 0), {**plus, "normalise": "tokens"}, BASE),
        single(
            "REINFORCE++ with the group's baseline",
            [a / scale for a in group_centred],
            {"baseline": "group_mean", "normalise": "completions"},
            ratio=False,
        ),
    ]


def rl_cases() -> dict[str, list[dict[str, Any]]]:
    """Spec name -> cases."""
    return {"ppo": ppo_cases(), "rloo": rloo_cases(), "grpo": grpo_cases(), "reinforce": reinforce_cases()}

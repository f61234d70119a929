"""The conformance vectors of the built-in specs, from the papers' equations alone, with 50 digits.

Nothing of nashtune is imported: the formulas are written a second time, with mpmath, and gradients are numerical
derivatives with 50 digits. `python tests/method_numbers.py` writes the files under specs/nashtune_specs/vectors; a
test checks that they are what this module gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
from mpmath import mpf

mpmath.mp.dps = 50
VECTORS = Path(__file__).parents[1] / "specs" / "nashtune_specs" / "vectors"

# Four pairs: gained, lost, unchanged, and won by the rejected answer's fall.
P4 = {
    "policy_chosen": [-20.0, -35.5, -12.75, -48.0],
    "policy_rejected": [-25.0, -30.25, -14.5, -60.0],
    "ref_chosen": [-22.0, -33.0, -12.75, -50.5],
    "ref_rejected": [-24.0, -31.0, -14.5, -52.0],
    "len_chosen": [10, 16, 5, 24],
    "len_rejected": [12, 14, 7, 30],
}
# The pair on which systems disagree about "ipo", "label_smoothing" and SimPO's defaults.
ONE = {
    "policy_chosen": [-30.0],
    "policy_rejected": [-12.0],
    "ref_chosen": [-33.0],
    "ref_rejected": [-11.0],
    "len_chosen": [20],
    "len_rejected": [5],
}
# Vocabulary of 4, two tokens each; rows are positions.
TOY: dict[str, Any] = {
    "policy_logits_chosen": [
        [[0.2, -0.6, -1.3, -1.4], [0.5, 1.0, -0.2, -1.1]],
        [[0.1, -0.1, 0.6, 0.1], [-0.5, 0.4, 1.3, 0.9]],
        [[0.3, -0.4, 1.1, 0.5], [0.5, 0.2, 0.9, 0.5]],
    ],
    "policy_logits_rejected": [
        [[0.9, -1.3, -0.7, 0.6], [-2.3, 0.4, -0.6, 0.1]],
        [[-0.7, -1.3, -0.6, 0.0], [-2.3, -0.2, -1.2, -0.7]],
        [[0.6, -1.4, 1.2, 1.1], [0.7, -0.3, 0.0, -1.1]],
    ],
    "ref_logits_chosen": [
        [[-0.1, 0.2, 0.7, -0.8], [1.4, 0.7, 0.8, 1.2]],
        [[-0.5, -0.3, 0.4, 1.0], [-0.1, 1.4, -0.7, 0.4]],
        [[-0.5, 2.0, -0.1, -0.5], [0.3, -0.1, -1.1, 0.5]],
    ],
    "ref_logits_rejected": [
        [[0.8, 0.8, 0.1, -1.4], [-0.1, -0.8, -1.4, 0.3]],
        [[0.9, 0.1, -0.7, -0.9], [-0.5, 0.2, -1.0, -0.2]],
        [[-0.4, 0.1, 1.2, 0.3], [1.4, 0.5, -0.7, -0.8]],
    ],
    "chosen_tokens": [[0, 1], [0, 1], [0, 1]],
    "rejected_tokens": [[2, 3], [2, 3], [2, 3]],
}


def log_sigmoid(x: Any) -> Any:
    return -mpmath.log(1 + mpmath.exp(-x))


def dpo(lw: Any, ll: Any, rw: Any, rl: Any, beta: Any, eps: Any = 0, p: Any = 1) -> Any:
    margin = mpf(beta) * ((lw - rw) - (ll - rl))
    q = mpf(p) * (1 - mpf(eps)) + (1 - mpf(p)) * mpf(eps)
    return -q * log_sigmoid(margin) - (1 - q) * log_sigmoid(-margin)


def ipo(lw: Any, ll: Any, rw: Any, rl: Any, nw: Any, nl: Any, tau: Any) -> Any:
    return ((lw - rw) / nw - (ll - rl) / nl - 1 / (2 * mpf(tau))) ** 2


def hinge(lw: Any, ll: Any, rw: Any, rl: Any, beta: Any) -> Any:
    return max(mpf(0), 1 - mpf(beta) * ((lw - rw) - (ll - rl)))


def simpo(lw: Any, ll: Any, nw: Any, nl: Any, beta: Any, ratio: Any) -> Any:
    return -log_sigmoid(mpf(beta) * (lw / nw - ll / nl - mpf(ratio)))


def orpo(lw: Any, ll: Any, nw: Any, nl: Any, lam: Any) -> Any:
    def log_odds(a: Any) -> Any:
        return a - mpmath.log(1 - mpmath.exp(a))

    return -lw / nw - mpf(lam) * log_sigmoid(log_odds(lw / nw) - log_odds(ll / nl))


def kto(logp: Any, ref: Any, z0: Any, beta: Any, desirable: bool, lam: Any = 1) -> Any:
    sign = 1 if desirable else -1
    return mpf(lam) * (1 - 1 / (1 + mpmath.exp(-sign * mpf(beta) * (logp - ref - mpf(z0)))))


def expected(
    loss: Callable[..., Any], policy: dict[str, Sequence[float]], *rest: Sequence[Any]
) -> dict[str, list[float]]:
    """Per-pair values, and derivatives with respect to each policy input; `rest` are per-pair constants."""
    found: dict[str, list[float]] = {"loss": [], **{f"grad_{name}": [] for name in policy}}
    for *point, i in zip(*policy.values(), range(len(next(iter(policy.values())))), strict=True):
        constants = [mpf(column[i]) if not isinstance(column[i], bool) else column[i] for column in rest]
        values = [mpf(value) for value in point]
        found["loss"].append(float(loss(*values, *constants)))
        for k, name in enumerate(policy):
            order = tuple(int(k == j) for j in range(len(values)))
            gradient = mpmath.diff(lambda *x, c=constants: loss(*x, *c), tuple(values), order)
            found[f"grad_{name}"].append(float(gradient))
    return found


def of_pairs(
    loss: Callable[..., Any], inputs: dict[str, Any], *columns: str, p: Sequence[float] = ()
) -> dict[str, list[float]]:
    """`expected` over the paired inputs, with further inputs by name."""
    policy = {name: inputs[name] for name in ("policy_chosen", "policy_rejected")}
    return expected(loss, policy, *(inputs[name] for name in columns), *([p] if p else []))


def log_softmax_at(row: Sequence[Any], token: int) -> Any:
    return row[token] - mpmath.log(mpmath.fsum(mpmath.exp(value) for value in row))


def toy_sum(pair: int, side: str, weight: Any) -> Any:
    """log-prob of a toy completion under softmax(weight f + (1 - weight) f_ref)."""
    policy, ref = TOY[f"policy_logits_{side}"][pair], TOY[f"ref_logits_{side}"][pair]
    mixed = [
        [mpf(weight) * a + (1 - mpf(weight)) * b for a, b in zip(*rows, strict=True)]
        for rows in zip(policy, ref, strict=True)
    ]
    return mpmath.fsum(
        log_softmax_at(row, token) for row, token in zip(mixed, TOY[f"{side}_tokens"][pair], strict=True)
    )


def toy_step(pair: int, eps: float) -> int:
    """s of a toy pair, from the three log-ratios."""
    minus, middle, plus = (
        toy_sum(pair, "chosen", weight) - toy_sum(pair, "rejected", weight)
        for weight in (1 + mpf(eps), 1, 1 - mpf(eps))
    )
    return int(minus > middle > plus) - int(plus > middle > minus)


def next_beta(steps: Sequence[int], beta: float, eps: float, rule: str) -> float:
    if rule == "mean_step":
        return float(mpf(beta) / (1 + mpf(eps) * mpmath.fsum(steps) / len(steps)))
    return float(mpmath.fsum(mpf(beta) / (1 + mpf(eps) * s) for s in steps) / len(steps))


def epsilon_case(
    name: str, eps: float, beta: float = 0.1, rule: str = "mean_beta", eps_step: float | None = None
) -> dict[str, Any]:
    size = eps if eps_step is None else eps_step
    steps = [toy_step(i, eps) for i in range(3)]
    betas = [mpf(beta) / (1 + mpf(size) * s) for s in steps]
    policy = {f"policy_{side}": [toy_sum(i, side, 1) for i in range(3)] for side in ("chosen", "rejected")}
    refs = [[toy_sum(i, side, 0) for i in range(3)] for side in ("chosen", "rejected")]
    kl = {"beta": beta, "epsilon": eps, "beta_update": rule, **({} if eps_step is None else {"epsilon_step": eps_step})}
    found = expected(dpo, policy, *refs, betas)
    more = {"steps": steps, "beta": [float(b) for b in betas], "beta_next": next_beta(steps, beta, size, rule)}
    return {"name": name, "params": {"kl": kl}, "inputs": TOY, "expected": {**found, **more}}


def steps_case(
    name: str, steps: list[int], beta: float, eps: float, rule: str, smoothing: float = 0.0
) -> dict[str, Any]:
    betas = [mpf(beta) / (1 + mpf(eps) * s) for s in steps]
    refs = ("ref_chosen", "ref_rejected")

    def loss(lw: Any, ll: Any, rw: Any, rl: Any, b: Any) -> Any:
        return dpo(lw, ll, rw, rl, b, smoothing)

    found = of_pairs(loss, P4, *refs, p=betas)
    params: dict[str, Any] = {"kl": {"beta": beta, "epsilon": eps, "beta_update": rule}}
    if smoothing:
        params["loss"] = {"label_smoothing": smoothing}
    more = {"steps": steps, "beta": [float(b) for b in betas], "beta_next": next_beta(steps, beta, eps, rule)}
    return {
        "name": name,
        "params": params,
        "inputs": {**without(P4, "len"), "steps": steps},
        "expected": {**found, **more},
    }


def without(inputs: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if not name.startswith(prefixes)}


def _dpo_case(
    name: str, inputs: dict[str, Any], beta: float, eps: float = 0.0, p: Sequence[float] = ()
) -> dict[str, Any]:
    def loss(lw: Any, ll: Any, rw: Any, rl: Any, q: Any = 1) -> Any:
        return dpo(lw, ll, rw, rl, beta, eps, q)

    params = {"loss": {"label_smoothing": eps}, "kl": {"beta": beta}}
    given = {**without(inputs, "len"), **({"p_chosen": list(p)} if p else {})}
    return {
        "name": name,
        "params": params,
        "inputs": given,
        "expected": of_pairs(loss, inputs, "ref_chosen", "ref_rejected", p=p),
    }


def _ipo_case(name: str, inputs: dict[str, Any], tau: float, reduction: str) -> dict[str, Any]:
    lengths = ("len_chosen", "len_rejected")

    def loss(lw: Any, ll: Any, rw: Any, rl: Any, nw: Any, nl: Any) -> Any:
        return ipo(lw, ll, rw, rl, *((nw, nl) if reduction == "mean" else (1, 1)), tau)

    params = {"loss": {"tau": tau, "reduction": reduction}}
    given = inputs if reduction == "mean" else without(inputs, "len")
    found = of_pairs(loss, inputs, "ref_chosen", "ref_rejected", *lengths)
    return {"name": name, "params": params, "inputs": given, "expected": found}


def _free_case(name: str, inputs: dict[str, Any], loss: Callable[..., Any], params: dict[str, float]) -> dict[str, Any]:
    def bound(lw: Any, ll: Any, nw: Any, nl: Any) -> Any:
        return loss(lw, ll, nw, nl, *params.values())

    found = of_pairs(bound, inputs, "len_chosen", "len_rejected")
    return {"name": name, "params": {"loss": params}, "inputs": without(inputs, "ref"), "expected": found}


def _kto_paired(name: str, z0: float, beta: float, lam_d: float = 1.0, lam_u: float = 1.0) -> dict[str, Any]:
    sides = {}
    for side, lam, good in (("chosen", lam_d, True), ("rejected", lam_u, False)):

        def loss(logp: Any, ref: Any, lam: float = lam, good: bool = good) -> Any:
            return kto(logp, ref, z0, beta, good, lam)

        sides[side] = expected(loss, {f"policy_{side}": P4[f"policy_{side}"]}, P4[f"ref_{side}"])
    found = {
        "loss": sides["chosen"].pop("loss") + sides["rejected"].pop("loss"),
        **sides["chosen"],
        **sides["rejected"],
    }
    params = {"loss": {"lam_desirable": lam_d, "lam_undesirable": lam_u}, "kl": {"beta": beta}}
    return {"name": name, "params": params, "inputs": {**without(P4, "len"), "z0": z0}, "expected": found}


def _kto_unpaired(name: str, mismatched: list[float], beta: float, lam_d: float, lam_u: float) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "policy": [-20.0, -25.0, -35.5, -48.0, -60.0],
        "ref": [-22.0, -24.0, -33.0, -50.5, -52.0],
        "desirable": [True, False, True, True, False],
        "policy_mismatched": mismatched,
        "ref_mismatched": [-80.0, -75.5, -90.0, -61.25, -70.0],
    }
    ratios = [mpf(a) - mpf(b) for a, b in zip(mismatched, inputs["ref_mismatched"], strict=True)]
    z0 = max(mpf(0), mpmath.fsum(ratios) / len(ratios))

    def loss(logp: Any, ref: Any, good: bool) -> Any:
        return kto(logp, ref, z0, beta, good, lam_d if good else lam_u)

    found: dict[str, Any] = expected(loss, {"policy": inputs["policy"]}, inputs["ref"], inputs["desirable"])
    params = {"loss": {"lam_desirable": lam_d, "lam_undesirable": lam_u}, "kl": {"beta": beta}}
    return {"name": name, "params": params, "inputs": inputs, "expected": {**found, "z0": float(z0)}}


def all_vectors() -> dict[str, dict[str, Any]]:
    """Spec name -> the content of its vector file."""
    from game_numbers import game_cases  # which builds upon this module
    from reward_numbers import reward_cases
    from rl_numbers import rl_cases
    from uncertainty_numbers import uncertainty_cases

    def hinge_case(name: str, inputs: dict[str, Any], beta: float) -> dict[str, Any]:
        found = of_pairs(lambda *x: hinge(*x, beta), inputs, "ref_chosen", "ref_rejected")
        return {"name": name, "params": {"kl": {"beta": beta}}, "inputs": without(inputs, "len"), "expected": found}

    likely = {
        "policy_chosen": [-0.5, -3.0, -0.04],
        "policy_rejected": [-4.0, -0.2, -0.02],
        "len_chosen": [8, 2, 40],
        "len_rejected": [5, 10, 4],
    }
    cases = {
        "dpo": [
            _dpo_case("four pairs", P4, 0.1),
            _dpo_case("label smoothing", P4, 0.1, eps=0.1),
            _dpo_case("soft labels", P4, 0.1, p=[1.0, 0.75, 0.5, 0.0]),
            _dpo_case("soft labels and smoothing", P4, 0.5, eps=0.2, p=[0.9, 0.6, 0.25, 1.0]),
            _dpo_case("the pair of the survey", ONE, 0.1),
        ],
        "cdpo": [
            _dpo_case("four pairs", P4, 0.1, eps=0.1),
            _dpo_case("smoothing 0.3", P4, 0.1, eps=0.3),
            _dpo_case("the pair of the survey", ONE, 0.1, eps=0.1),
        ],
        "ipo": [
            _ipo_case("four pairs, mean", P4, 0.1, "mean"),
            _ipo_case("four pairs, sum", P4, 0.1, "sum"),
            _ipo_case("the pair of the survey, mean", ONE, 0.1, "mean"),
        ],
        "ipo_sum": [_ipo_case("four pairs", P4, 0.1, "sum"), _ipo_case("the pair of the survey", ONE, 0.1, "sum")],
        "slic_hinge": [hinge_case("four pairs", P4, 0.1), hinge_case("the pair of the survey", ONE, 0.05)],
        "simpo": [
            _free_case("four pairs", P4, simpo, {"beta": 2.5, "gamma_beta_ratio": 0.55}),
            _free_case("the pair of the survey", ONE, simpo, {"beta": 2.5, "gamma_beta_ratio": 0.55}),
            _free_case("no margin", P4, simpo, {"beta": 2.0, "gamma_beta_ratio": 0.0}),
        ],
        "orpo": [
            _free_case("four pairs", P4, orpo, {"lam": 0.1}),
            _free_case("likely completions", likely, orpo, {"lam": 1.0}),
        ],
        "kto": [
            _kto_paired("four pairs, given z0", 0.75, 0.1),
            _kto_paired("weights", 0.0, 0.2, lam_d=1.0, lam_u=1.5),
            _kto_unpaired("unpaired", [-78.0, -76.25, -87.5, -60.0, -69.0], 0.1, 1.0, 1.0),
            _kto_unpaired("unpaired, negative estimate", [-82.0, -79.25, -91.5, -66.0, -70.5], 0.3, 2.0, 0.5),
        ],
        "epsilon_dpo": [
            epsilon_case("logits, 0.1", 0.1),
            epsilon_case("logits, 0.01", 0.01),
            epsilon_case("logits, rule of the authors' code", 0.1, rule="mean_step"),
            epsilon_case("criterion 0.01, step 0.1", 0.01, eps_step=0.1),
            steps_case("given steps, paper's rule", [1, -1, 0, 0], 0.1, 0.1, "mean_beta"),
            steps_case("given steps, rule of the authors' code", [1, -1, 0, 0], 0.1, 0.1, "mean_step"),
            steps_case("three up, paper's rule", [1, 1, -1, 0], 0.1, 0.01, "mean_beta"),
            steps_case("three up, rule of the authors' code", [1, 1, -1, 0], 0.1, 0.01, "mean_step"),
            steps_case("label smoothing is cDPO's", [1, -1, 0, 1], 0.1, 0.1, "mean_beta", smoothing=0.1),
        ],
    }
    source = "Computed with 50 digits from the paper's equations, apart from the implementation."
    return {
        name: {"source": source, "cases": found}
        for name, found in {**cases, **game_cases(), **reward_cases(), **rl_cases(), **uncertainty_cases()}.items()
    }


def text(content: dict[str, Any]) -> str:
    """A vector file: one line per key of a case."""
    blocks = []
    for case in content["cases"]:
        lines = []
        for key, value in case.items():
            if key in ("inputs", "expected"):
                inner = ",\n".join(f"        {json.dumps(name)}: {json.dumps(part)}" for name, part in value.items())
                lines.append(f'      "{key}": {{\n{inner}\n      }}')
            else:
                lines.append(f'      "{key}": {json.dumps(value)}')
        blocks.append("    {\n" + ",\n".join(lines) + "\n    }")
    return f'{{\n  "source": {json.dumps(content["source"])},\n  "cases": [\n' + ",\n".join(blocks) + "\n  ]\n}\n"


if __name__ == "__main__":
    VECTORS.mkdir(exist_ok=True)
    for name, content in all_vectors().items():
        (VECTORS / f"{name}.json").write_text(text(content), encoding="utf-8")
        print(f"{name}: {len(content['cases'])} cases")

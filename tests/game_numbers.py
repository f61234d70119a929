"""The conformance vectors of the games' specs, from the papers' equations alone, with 50 digits (see method_numbers).

Inputs of three kinds: four pairs under three policies (ONPO, INPO, Nash-MD), the four pairs of the offline methods with
win rates (SPPO, online DPO and IPO), and three completions token by token (Nash-MD-PG).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath
from mpmath import mpf

from method_numbers import P4, dpo, ipo, of_pairs, without

PLAYED = {
    "policy_chosen": [-12.0, -30.5, -8.25, -45.0],
    "policy_rejected": [-15.5, -29.0, -8.0, -60.0],
}
LAST = ([-13.0, -30.0, -9.0, -47.5], [-15.0, -29.75, -8.5, -57.0])
FIRST = ([-14.0, -31.0, -9.5, -50.0], [-14.5, -30.25, -8.75, -55.0])
AUX = {**PLAYED, "aux_chosen": LAST[0], "aux_rejected": LAST[1]}
THREE = {
    **PLAYED,
    "previous_chosen": LAST[0],
    "previous_rejected": LAST[1],
    "ref_chosen": FIRST[0],
    "ref_rejected": FIRST[1],
}
RATED = {
    "policy_chosen": P4["policy_chosen"],
    "policy_rejected": P4["policy_rejected"],
    "previous_chosen": P4["ref_chosen"],
    "previous_rejected": P4["ref_rejected"],
    "win_rate_chosen": [0.80, 0.65, 0.55, 0.90],
    "win_rate_rejected": [0.25, 0.40, 0.50, 0.05],
}
CERTAINTY = [0.9, 0.7, 0.55, 0.95]
TOKENS: dict[str, Any] = {
    "policy": [[-0.5, -1.2, -0.1], [-2.0, -0.3], [-0.7, -0.2, -1.5, -0.4]],
    "ref": [[-0.7, -1.0, -0.4], [-1.5, -0.9], [-0.6, -0.5, -1.1, -0.9]],
    "score": [0.8, 0.35, 0.6],
}
Loss = Callable[..., Any]


def optimistic(lw: Any, ll: Any, aw: Any, al: Any, eta: Any) -> Any:
    return ((lw - ll) - (aw - al) - mpf(eta) / 2) ** 2


def centred(lw: Any, ll: Any, pw: Any, pl: Any, rw: Any, rl: Any, ref: Any, step: Any) -> Any:
    """Mirror step of size `step` from the mixture previous^(1 - ref) reference^ref."""
    return ((lw - ll) - mpf(ref) * (rw - rl) - (1 - mpf(ref)) * (pw - pl) - mpf(step) / 2) ** 2


def self_play(lw: Any, ll: Any, pw: Any, pl: Any, won: Any, lost: Any, eta: Any, form: str) -> Any:
    """SPPO; `won` and `lost` are what win rates stand for in the targets."""
    h_w, h_l, t_w, t_l = lw - pw, ll - pl, mpf(eta) * (won - mpf(1) / 2), mpf(eta) * (lost - mpf(1) / 2)
    if form == "cancelled":
        return (h_w - h_l - (t_w - t_l)) ** 2
    squares = (h_w - t_w) ** 2 + (h_l - t_l) ** 2
    return squares if form == "hard" else squares / 2


def with_margin(found: dict[str, Any], margin: Callable[[int], Any], target: Any) -> dict[str, Any]:
    count = len(found["loss"])
    return {
        **found,
        "log_ratio_margin": [float(margin(i)) for i in range(count)],
        "target": [float(target)] * count,
    }


def _onpo(name: str, eta: float, scale: float = 1.0) -> dict[str, Any]:
    found = of_pairs(lambda *x: optimistic(*x, scale * mpf(eta)), AUX, "aux_chosen", "aux_rejected")
    g = [mpf(a) - b - (mpf(c) - d) for a, b, c, d in zip(*AUX.values(), strict=True)]
    return {
        "name": name,
        "params": {"loss": {"eta": eta}},
        **({} if scale == 1 else {"step": {"scale": scale}}),
        "inputs": AUX,
        "expected": with_margin(found, lambda i: g[i], scale * mpf(eta) / 2),
    }


def _centred(name: str, loss: dict[str, Any], ref: Any, step: Any, round: int = 1) -> dict[str, Any]:
    columns = ("previous_chosen", "previous_rejected", "ref_chosen", "ref_rejected")
    found = of_pairs(lambda *x: centred(*x, ref, step), THREE, *columns)

    def h(i: int) -> Any:
        lw, ll, pw, pl, rw, rl = (mpf(column[i]) for column in THREE.values())
        return (lw - ll) - mpf(ref) * (rw - rl) - (1 - mpf(ref)) * (pw - pl)

    return {
        "name": name,
        "params": {"loss": loss},
        **({} if round == 1 else {"step": {"round": round}}),
        "inputs": THREE,
        "expected": with_margin(found, h, mpf(step) / 2),
    }


def _inpo(name: str, eta: float, tau: float) -> dict[str, Any]:
    return _centred(name, {"eta": eta, "tau": tau}, mpf(tau) / mpf(eta), 1 / mpf(eta))


def _inpo_round(round: int, tau: float) -> dict[str, Any]:
    eta = mpf(tau) * (round + 2) / 2
    loss = {"eta": None, "tau": tau, "eta_rule": "last_iterate"}
    return _centred(f"last-iterate step, round {round}", loss, mpf(tau) / eta, 1 / eta, round)


def _nash_md(name: str, eta: float, tau: float) -> dict[str, Any]:
    return _centred(name, {"eta": eta, "tau": tau}, mpf(eta) * mpf(tau), mpf(eta))


def _nash_md_round(round: int, tau: float) -> dict[str, Any]:
    eta = 2 / (mpf(tau) * (round + 2))
    loss = {"eta": None, "tau": tau, "eta_rule": "last_iterate"}
    return _centred(f"last-iterate step, round {round}", loss, eta * mpf(tau), eta, round)


def _sppo(name: str, eta: float, targets: str = "win_rate", form: str = "half") -> dict[str, Any]:
    inputs = {name: value for name, value in RATED.items() if targets == "win_rate" or not name.startswith("win")}
    columns = ["previous_chosen", "previous_rejected"]
    if targets == "win_rate":

        def loss(lw: Any, ll: Any, pw: Any, pl: Any, won: Any, lost: Any) -> Any:
            return self_play(lw, ll, pw, pl, won, lost, eta, form)

        found = of_pairs(loss, inputs, *columns, "win_rate_chosen", "win_rate_rejected")
    else:

        def loss_of_pair(lw: Any, ll: Any, pw: Any, pl: Any, p: Any) -> Any:
            return self_play(lw, ll, pw, pl, p, 1 - p, eta, "hard" if targets == "hard" else form)

        certainty = [1.0] * 4 if targets == "hard" else CERTAINTY
        found = of_pairs(loss_of_pair, inputs, *columns, p=certainty)
        inputs = {**inputs, **({} if targets == "hard" else {"p_chosen": CERTAINTY})}
    options = {"eta": eta, "targets": targets, "log_partition": form}
    return {"name": name, "params": {"loss": options}, "inputs": inputs, "expected": found}


def coefficients(ratios: Sequence[Any], score: Any, tau: Any, kl_grad: str) -> list[Any]:
    """Of each token's log-prob in the surrogate of one completion."""
    penalties = {
        "to_go": [mpmath.fsum(ratios[n:]) for n in range(len(ratios))],
        "sequence": [mpmath.fsum(ratios)] * len(ratios),
        "per_token": list(ratios),
    }
    return [mpf(score) - mpf(1) / 2 - mpf(tau) * penalty for penalty in penalties[kl_grad]]


def _nash_pg(name: str, tau: float, kl_grad: str) -> dict[str, Any]:
    losses, grads, log_ratios = [], [], []
    for logp, logmu, score in zip(TOKENS["policy"], TOKENS["ref"], TOKENS["score"], strict=True):
        ratios = [mpf(a) - mpf(b) for a, b in zip(logp, logmu, strict=True)]
        weights = coefficients(ratios, score, tau, kl_grad)
        losses.append(float(-mpmath.fsum(mpf(a) * c for a, c in zip(logp, weights, strict=True))))
        grads.append([float(-c) for c in weights])
        log_ratios.append(float(mpmath.fsum(ratios)))
    return {
        "name": name,
        "params": {"loss": {"tau": tau, "kl_grad": kl_grad}},
        "inputs": TOKENS,
        "expected": {"loss": losses, "grad_policy": grads, "log_ratio": log_ratios},
    }


def _online(name: str, loss: Loss, params: dict[str, Any]) -> dict[str, Any]:
    inputs = without(P4, "len")
    return {
        "name": name,
        "params": params,
        "inputs": inputs,
        "expected": of_pairs(loss, inputs, "ref_chosen", "ref_rejected"),
    }


def game_cases() -> dict[str, list[dict[str, Any]]]:
    """Spec name -> cases."""
    gradient = [_nash_pg(f"three completions, {form}", 0.1, form) for form in ("to_go", "sequence", "per_token")]
    return {
        "onpo": [_onpo("four pairs, eta 2", 2.0), _onpo("eta 100", 100.0), _onpo("eta 0.5", 0.5)],
        "onpo_virtual": [
            _onpo("two steps at once, eta 2", 2.0, scale=2.0),
            _onpo("two steps at once, eta 0.5", 0.5, scale=2.0),
        ],
        "inpo": [
            _inpo("four pairs, eta 0.5", 0.5, 0.5 / 3),
            _inpo("eta 0.005", 0.005, 0.005 / 3),
            _inpo("without the KL divergence", 0.5, 0.0),
            _inpo("tau = eta", 0.5, 0.5),
            _inpo_round(1, 0.1),
            _inpo_round(4, 0.1),
        ],
        "nash_md": [
            _nash_md("four pairs, eta 2", 2.0, 1.0 / 6),
            _nash_md("eta 40", 40.0, 0.008),
            _nash_md("without the KL divergence", 2.0, 0.0),
            _nash_md_round(1, 0.1),
            _nash_md_round(4, 0.1),
        ],
        "sppo": [
            _sppo("four pairs, eta 1000", 1000.0),
            _sppo("eta 10", 10.0),
            _sppo("from the pair's probability, eta 10", 10.0, "single"),
            _sppo("from the label, eta 10", 10.0, "hard"),
        ],
        "sppo_exact": [
            _sppo("four pairs, eta 10", 10.0, form="cancelled"),
            _sppo("eta 1000", 1000.0, form="cancelled"),
        ],
        "nash_md_pg": [*gradient, _nash_pg("tau 0 is REINFORCE", 0.0, "to_go")],
        "nash_ema_pg": [*gradient, _nash_pg("tau 0.008", 0.008, "to_go")],
        "online_dpo": [
            _online("four pairs", lambda *x: dpo(*x, 0.1), {"kl": {"beta": 0.1}}),
            _online("beta 0.5", lambda *x: dpo(*x, 0.5), {"kl": {"beta": 0.5}}),
        ],
        "online_ipo": [
            _online("four pairs", lambda *x: ipo(*x, 1, 1, 0.1), {"loss": {"tau": 0.1}}),
            _online("tau 0.5", lambda *x: ipo(*x, 1, 1, 0.5), {"loss": {"tau": 0.5}}),
        ],
    }

"""What the gallery shows of a spec in numbers: the output of `nashtune verify --json`, and of the code of `vectors`.

Which picture a spec gets follows from what it declares, so that a new one needs no line here. Its command is the first
`nashtune verify SPEC ...` of its page, where that has one: steps that the theory covers stand there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shlex
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nashtune.cli.main import main
from nashtune.evaluation.vectors import evaluate
from nashtune.interfaces import RewardOracle
from nashtune.spec.resolve import build, resolve

if TYPE_CHECKING:
    from nashtune.spec.model import Spec

ROOT = Path(__file__).parents[1]
DRAWING = 1
"""Raised when pictures are drawn in another way, so that all of them count as outdated."""
GAME = "nashtune verify {name} --game weighted_rps --rounds 100"
BANDIT = "nashtune verify {name} --game bandit.json --spec.kl.beta 1"
OPTIMUM = "nashtune verify {name} --game bradley_terry:0.2,0.1,0"
POINTS = 81
TOKENS = 10
EXTRA: dict[str, Any] = {"z0": 0.0, "steps": [0] * POINTS}
"""Inputs that some methods ask for besides log-probs: no KL to subtract, no decision of the controller."""


@dataclass(frozen=True)
class Recipe:
    """How a spec is drawn.

    Attributes:
        picture: "game", "bandit", "optimum", "curve" or "none".
        command: Of `nashtune verify`; "" where the picture needs none.
    """

    picture: str
    command: str


@cache
def spec_of(name: str) -> Spec:
    """The spec by its name, resolved once."""
    return resolve(name)


@cache
def recipe(name: str) -> Recipe:
    spec = spec_of(name)
    loss, schedule = build(spec.loss), build(spec.schedule)
    oracle = build(spec.oracle) if spec.oracle is not None else None
    if loss.reads == "scores" or loss.rows in ("examples", "comparisons", "ranked"):
        return Recipe("curve", "")
    if isinstance(oracle, RewardOracle):
        return Recipe("bandit", _command(name, BANDIT))
    if loss.rows == "rollouts":
        return Recipe("none", "")
    if "sampler" in schedule.reads:
        return Recipe("game", _command(name, GAME))
    return Recipe("optimum", _command(name, OPTIMUM))


def _command(name: str, default: str) -> str:
    page = ROOT / "docs" / "methods" / f"{name}.md"
    found = re.search(rf"^ *(nashtune verify {name} .*)$", _unwrapped(page.read_text("utf-8")), re.MULTILINE)
    return found[1] if found else default.format(name=name)


def _unwrapped(page: str) -> str:
    """Commands over several lines in one."""
    return re.sub(r" *\\\n *", " ", page)


def bandit_file() -> str:
    """The bandit of the page on bandits."""
    page = (ROOT / "docs" / "bandits.md").read_text(encoding="utf-8")
    found = re.search(r'```json title="bandit.json"\n(.*?)```', page, re.DOTALL)
    assert found is not None
    return found[1]


def inputs(name: str) -> str:
    """A hash of all that the picture depends on but the code."""
    made = recipe(name)
    spec = {key: value for key, value in spec_of(name).to_dict().items() if key not in ("about", "optimizer")}
    parts = [DRAWING, made.picture, made.command, bandit_file() if made.picture == "bandit" else "", spec]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def verified(command: str) -> dict[str, Any] | None:
    """What the command prints as JSON; None where it finds no finite minimiser."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("bandit.json").write_text(bandit_file(), encoding="utf-8")
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = main([*shlex.split(command)[1:], "--json"])
    if code == 1:
        return None
    assert code == 0, f"{command} ended with {code}"
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


@dataclass(frozen=True)
class Curve:
    """Loss and gradients of one row over a difference.

    Attributes:
        x: The difference (POINTS,).
        label: What it is.
        loss: Line by label.
        slope: The same of gradients.
    """

    x: np.ndarray
    label: str
    loss: dict[str, list[float]]
    slope: dict[str, list[float]]


def curve(spec: Spec) -> Curve:
    """By the code that runs vectors, over a range that a language model's log-probs (or scores) have."""
    loss = build(spec.loss)
    judge = spec.about.get("kind") == "reward"
    half, base = (6.0, -4.0) if judge else (60.0, -40.0)
    x = np.linspace(-half, half, POINTS)
    if loss.reads == "scores" and loss.rows == "ranked":
        out = evaluate(spec, {"inputs": {"scores": [[d / 2, 0.0, -d / 2] for d in x]}}).outputs
        slopes = np.array(out["grad_scores"]).T
        named = dict(zip(("of the best", "of the middle one", "of the worst"), slopes.tolist(), strict=True))
        return Curve(x, "score of the best minus that of the worst of three", {"": out["loss"]}, named)
    if loss.reads == "scores":
        members = spec.head.members if spec.head is not None else 1
        sides = {"score_chosen": x / 2, "score_rejected": -x / 2}
        given = {side: (np.tile(v[:, None], members) if members > 1 else v).tolist() for side, v in sides.items()}
        out = evaluate(spec, {"inputs": given}).outputs
        slopes = {side: np.reshape(out[f"grad_score_{side}"], (POINTS, -1)).sum(1) for side in ("chosen", "rejected")}
        named = {f"of the {side} score": v.tolist() for side, v in slopes.items()}
        return Curve(x, "chosen score minus rejected score", {"": out["loss"]}, named)
    kl = build(spec.kl) if spec.kl is not None else None
    single = loss.rows == "examples"
    chosen, rejected = (base + x, base + x) if single else (base + x / 2, base - x / 2)
    given = {"policy_chosen": chosen.tolist(), "policy_rejected": rejected.tolist()}
    given |= {f"len_{side}": [TOKENS] * POINTS for side in ("chosen", "rejected")}
    given |= {f"{name}_{side}": [base] * POINTS for name in spec.references for side in ("chosen", "rejected")}
    asked = {*loss.vector_inputs, *(kl.vector_inputs if kl is not None else ())}
    given |= {name: value for name, value in EXTRA.items() if name in asked}
    out = evaluate(spec, {"inputs": given}).outputs
    slopes = {side: out[f"grad_policy_{side}"] for side in ("chosen", "rejected")}
    if single:
        values = {"desirable": out["loss"][:POINTS], "undesirable": out["loss"][POINTS:]}
        return Curve(x, "h = log π/π_ref, in nats", values, dict(zip(values, slopes.values(), strict=True)))
    named = {f"of log π_{y}": slope for y, slope in zip("wl", slopes.values(), strict=True)}
    what = "h_w − h_l" if spec.references else "log π_w − log π_l"
    return Curve(x, f"{what}, nats" + ("" if judge else f" ({TOKENS} tokens each)"), {"": out["loss"]}, named)


def headline(found: dict[str, Any] | None, picture: str) -> dict[str, Any]:
    """The few numbers that stand below a picture, to six digits."""
    if found is None:
        return {}
    if picture == "bandit":
        matched = next((one for one in found["theory"] if one["name"] == "vanilla KL at the spec's mean KL"), None)
        keys = ("kl", "gain", "risk", "mean_kl")
        picked = {key: found[key] for key in keys}
        return _rounded(picked | ({} if matched is None else {"vanilla_risk": matched["risk"]}))
    gaps, bound, tau = found["duality_gap"], found["bound"], found["regularised_gap"]["last"]
    if picture == "optimum":
        return _rounded({"policy": found["policy"]["last"][-1], "kl": found["kl"]["start"][-1]})
    numbers = {"rounds": found["rounds"], "last": gaps["last"][-1], "average": gaps["average"][-1]}
    numbers |= {} if bound is None else {"bound": bound["values"][-1]}
    return _rounded(numbers | ({} if tau is None else {"tau": found["tau"], "regularised": tau[-1]}))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value

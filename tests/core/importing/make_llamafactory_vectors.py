"""Makes specs/nashtune_specs/imports/llamafactory-*.vectors.json by calling LLaMA-Factory's own trainers.

No test runs this: it needs LLaMA-Factory 0.9.5 with transformers 5.6.0 and a TRL that it allows, and the files are
kept, one of TRL 0.24.0 (the newest allowed) and one of TRL 0.19.1, because `pref_loss` is not the same in both:

    python tests/core/importing/make_llamafactory_vectors.py \\
        > specs/nashtune_specs/imports/llamafactory-0.9.5-trl-0.24.0.vectors.json

A trainer is made without its constructor, and the method that computes the loss of a batch is called on one pair (or
one example) at a time. What is put in place of code is the sum of log-probs and the length of each answer, which are
given, in float64; whether they are divided, and everything after that, is LLaMA-Factory's and TRL's. Gradients are
autograd's.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from make_trl_vectors import EXAMPLES, NO_REFERENCE, PAIRS, Z0, row, same
from torch import Tensor

FIRST_WITHOUT = (0, 20)
"""TRL whose `dpo_loss` takes the loss as an argument, which LLaMA-Factory does not give: it is sigmoid then."""
IGNORES = tuple(int(part) for part in version("trl").split(".")[:2]) >= FIRST_WITHOUT
TAU = {"name": "ipo", "reduction": "mean"}
WITHOUT_REFERENCE = ("orpo", "simpo")


def params(loss: str, beta: float, config: dict[str, Any]) -> dict[str, Any]:
    """What a case is here."""
    here: dict[str, dict[str, Any]] = {
        "sigmoid": {"kl": {"beta": beta}},
        "hinge": {"loss": "slic_hinge", "kl": {"beta": beta}},
        "ipo": {"loss": {**TAU, "tau": beta}, "kl": "none"},
        "orpo": {"loss": {"name": "orpo", "lam": beta}, **NO_REFERENCE},
        "simpo": {
            "loss": {"name": "simpo", "beta": beta, "gamma_beta_ratio": config.get("simpo_gamma", 0.5) / beta},
            **NO_REFERENCE,
        },
        "kto": {
            "loss": {"name": "kto", "lam_desirable": 1.0, "lam_undesirable": config.get("kto_rejected_weight", 1.0)},
            "kl": {"beta": beta},
        },
    }
    if loss == "sigmoid" and config:
        return {"loss": {"name": "dpo", "label_smoothing": config["dpo_label_smoothing"]}, **here["sigmoid"]}
    return here["sigmoid"] if IGNORES and loss in ("hinge", "ipo") else here[loss]


CASES: list[tuple[str, float, dict[str, Any]]] = [
    *(("sigmoid", beta, {}) for beta in (0.1, 0.5)),
    ("sigmoid", 0.1, {"dpo_label_smoothing": 0.1}),
    *(("hinge", beta, {}) for beta in (0.1, 0.05)),
    *(("ipo", beta, {}) for beta in (0.1, 0.5)),
    *(("orpo", beta, {}) for beta in (0.1, 0.5)),
    *(("simpo", beta, {"simpo_gamma": gamma}) for beta, gamma in ((0.1, 0.5), (2.5, 1.375))),
    *(("kto", beta, {"kto_rejected_weight": weight}) for beta, weight in ((0.1, 1.0), (0.5, 1.5))),
]


def trainer(module: Any, name: str, settings: dict[str, Any]) -> Any:
    cls = getattr(module, name)
    made = cls.__new__(cls)
    made.accelerator = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=same)
    made._stored_metrics = defaultdict(lambda: defaultdict(list))
    made.ref_model = forward
    for key, value in settings.items():
        setattr(made, key, value)
    return made


def forward(input_ids: Tensor, **_: Any) -> SimpleNamespace:
    """In place of both models: their log-probs are given."""
    return SimpleNamespace(logits=torch.zeros(len(input_ids), 1, 1))


def sums_of(module: Any, sums: list[Tensor], lengths: list[Tensor]) -> None:
    """Let a trainer's module find these sums and lengths, one after the other, instead of reading logits."""
    given = iter(list(zip(sums, lengths, strict=True)))
    module.get_batch_logps = lambda **_: next(given)


def pair(loss: str, beta: float, config: dict[str, Any], one: dict[str, Any]) -> tuple[float, float, float]:
    module = import_module("llamafactory.train.dpo.trainer")
    settings = {
        "finetuning_args": SimpleNamespace(use_ref_model=loss not in WITHOUT_REFERENCE),
        "loss_type": loss,
        "beta": beta,
        "label_smoothing": config.get("dpo_label_smoothing", 0.0),
        "simpo_gamma": config.get("simpo_gamma", 0.5),
        "ftx_gamma": 0.0,
        "bco_gemma": 0.0,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "reference_free": False,
    }
    made = trainer(module, "CustomDPOTrainer", settings)
    policy = torch.tensor([one["policy_chosen"], one["policy_rejected"]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([one["ref_chosen"], one["ref_rejected"]], dtype=torch.float64)
    sums_of(module, [policy, reference], [torch.tensor([one["len_chosen"], one["len_rejected"]])] * 2)
    batch = {"input_ids": torch.zeros(2, 1), "labels": torch.zeros(2, 1)}
    value, _ = made.get_batch_loss_metrics(forward, batch)
    value.backward()
    assert policy.grad is not None
    return value.item(), policy.grad[0].item(), policy.grad[1].item()


def example(beta: float, config: dict[str, Any], one: dict[str, Any]) -> tuple[float, float]:
    module = import_module("llamafactory.train.kto.trainer")
    settings = {
        "finetuning_args": SimpleNamespace(),
        "loss_type": "kto",
        "calculate_KL": True,
        "beta": beta,
        "desirable_weight": 1.0,
        "undesirable_weight": config["kto_rejected_weight"],
        "ftx_gamma": 0.0,
    }
    made = trainer(module, "CustomKTOTrainer", settings)
    policy, *others = (
        torch.tensor([one], dtype=torch.float64) for one in (one["policy"], -10.0, one["ref"], -10.0 - Z0)
    )
    sums_of(module, [policy.requires_grad_(), *others], [torch.tensor([one["length"]])] * 4)
    rows = {name: torch.zeros(1, 1) for name in ("input_ids", "attention_mask", "labels")}
    batch = {**rows, **{f"kl_{name}": part for name, part in rows.items()}}
    value, _ = made.get_batch_loss_metrics(forward, {**batch, "kto_tags": torch.tensor([one["desirable"]])})
    value.backward()
    assert policy.grad is not None
    return value.item(), policy.grad.item()


def of_means(three: list[tuple[float, float, float]]) -> tuple[dict[str, Any], list[tuple[float, float, float]]]:
    """The pairs with means per token in place of sums, and the numbers with gradients by those."""
    sides = {side: PAIRS[f"len_{side}"] for side in ("chosen", "rejected")}
    inputs = dict(PAIRS)
    for model in ("policy", "ref"):
        for side, lengths in sides.items():
            sums = PAIRS[f"{model}_{side}"]
            inputs[f"{model}_{side}"] = [one / length for one, length in zip(sums, lengths, strict=True)]
    return inputs, [
        (one[0], one[1] * chosen, one[2] * rejected)
        for one, chosen, rejected in zip(three, *sides.values(), strict=True)
    ]


def case(loss: str, beta: float, config: dict[str, Any]) -> dict[str, Any]:
    shown = ", ".join(f"{key} {value:g}" for key, value in {"pref_beta": beta, **config}.items())
    made: dict[str, Any] = {"name": f"{loss}, {shown}", "params": params(loss, beta, config)}
    if loss == "kto":
        numbers = [example(beta, config, row(EXAMPLES, number)) for number in range(len(EXAMPLES["policy"]))]
        expected = {"loss": [one[0] for one in numbers], "grad_policy": [one[1] for one in numbers]}
        return {**made, "inputs": {**EXAMPLES, "z0": Z0}, "expected": expected}
    three = [pair(loss, beta, config, row(PAIRS, number)) for number in range(len(PAIRS["policy_chosen"]))]
    inputs: dict[str, Any] = dict(PAIRS)
    if loss in WITHOUT_REFERENCE:
        inputs = {name: values for name, values in PAIRS.items() if not name.startswith("ref")}
    if IGNORES and loss == "ipo":
        inputs, three = of_means(three)
    return {
        **made,
        "inputs": inputs,
        "expected": {
            "loss": [one[0] for one in three],
            "grad_policy_chosen": [one[1] for one in three],
            "grad_policy_rejected": [one[2] for one in three],
        },
    }


if __name__ == "__main__":
    source = (
        f"The code of LLaMA-Factory {version('llamafactory')} with TRL {version('trl')}, called by "
        "tests/core/importing/make_llamafactory_vectors.py in float64: get_batch_loss_metrics of CustomDPOTrainer and "
        f"of CustomKTOTrainer (torch {version('torch').partition('+')[0]}). params say what each loss is here"
        + (": hinge and ipo are computed as sigmoid with this TRL, ipo on means per token." if IGNORES else ".")
    )
    text = json.dumps({"source": source, "cases": [case(*one) for one in CASES]}, indent=2)
    print(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text))

"""Makes specs/nashtune_specs/imports/trl-1.16.0.vectors.json by calling TRL's own loss code on given log-probs.

No test runs this: it needs TRL 1.16.0 (`pip install trl==1.16.0`), and the file is kept.

    python tests/core/importing/make_trl_vectors.py > specs/nashtune_specs/imports/trl-1.16.0.vectors.json

With TRL 1.9.0, which Axolotl 0.19.0 trains with, it gives the same numbers.

A trainer is made without its constructor, its model is a function that returns given log-probs per token, and the
method that computes the loss is called on one pair (or one example) at a time, in float64; gradients are autograd's.
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
from torch import Tensor

PAIRS: dict[str, list[float]] = {
    "policy_chosen": [-30.0, -20.0, -48.0, -12.75],
    "policy_rejected": [-12.0, -25.0, -60.0, -14.5],
    "len_chosen": [20, 8, 31, 5],
    "len_rejected": [5, 11, 17, 5],
    "ref_chosen": [-33.0, -22.0, -50.5, -12.75],
    "ref_rejected": [-11.0, -24.0, -52.0, -14.5],
}
EXAMPLES: dict[str, list[Any]] = {
    "policy": [-20.0, -35.5, -12.75],
    "length": [9, 14, 6],
    "desirable": [True, False, True],
    "ref": [-22.0, -33.0, -12.75],
}
NO_REFERENCE = {"kl": "none", "references": "none"}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *(("sigmoid", {"beta": beta}, {"kl": {"beta": beta}}) for beta in (0.1, 0.5)),
    ("sigmoid", {"beta": 0.1, "label_smoothing": 0.1}, {"kl": {"beta": 0.1}}),
    ("robust", {"beta": 0.1}, {"kl": {"beta": 0.1}}),
    *(("hinge", {"beta": beta}, {"loss": "slic_hinge", "kl": {"beta": beta}}) for beta in (0.1, 0.05)),
    *(
        ("ipo", {"beta": beta}, {"loss": {"name": "ipo", "tau": beta, "reduction": "mean"}, "kl": "none"})
        for beta in (0.1, 0.5)
    ),
    *(
        (
            "sppo_hard",
            {"beta": beta},
            {
                "loss": {"name": "sppo", "eta": 1 / beta, "targets": "hard"},
                "kl": "none",
                "references": {"ref": "none", "previous": "previous"},
                "oracle": "preference",
                "sampler": "policy",
                "pairing": "best_worst",
                "schedule": "online",
            },
        )
        for beta in (0.1, 0.01)
    ),
    *(
        (
            "simpo",
            {"beta": beta, "simpo_gamma": gamma, "cpo_alpha": 0.0},
            {"loss": {"name": "simpo", "beta": beta, "gamma_beta_ratio": gamma / beta}, **NO_REFERENCE},
        )
        for beta, gamma in ((0.1, 0.5), (2.5, 1.375))
    ),
    *(
        (
            "kto",
            {"beta": beta, "desirable_weight": 1.0, "undesirable_weight": weight},
            {"loss": {"name": "kto", "lam_desirable": 1.0, "lam_undesirable": weight}, "kl": {"beta": beta}},
        )
        for beta, weight in ((0.1, 1.0), (0.5, 1.5))
    ),
]
Z0 = 0.7
GIVEN: dict[int, tuple[Tensor, Tensor]] = {}
"""Logits, which stay in memory so that no others get their place, with the log-probs that they stand for."""


def same(value: Any) -> Any:
    return value


def trainer(module: str, name: str, settings: dict[str, Any]) -> Any:
    code: Any = import_module(module)
    if hasattr(code, "selective_log_softmax"):
        code.selective_log_softmax = given
    cls = getattr(code, name)
    made = cls.__new__(cls)
    device = torch.device("cpu")
    made.accelerator = SimpleNamespace(device=device, gather=same, gather_for_metrics=same)
    made.model = SimpleNamespace(training=True)
    made._metrics = {"train": defaultdict(list)}
    made._total_train_tokens, made._tp_size = 0, 1
    made.use_liger_kernel = False
    made.aux_loss_enabled, made.precompute_ref_logps = False, True
    for key, value in settings.items():
        setattr(made, key, value)
    return made


def tokens(sums: list[float], lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Log-probs per token whose sums are given, padded with zeros, and the mask of a prompt token and of them."""
    longest = max(lengths)
    log_probs = torch.zeros(len(sums), longest, dtype=torch.float64)
    mask = torch.zeros(len(sums), longest + 1, dtype=torch.long)
    for row, (total, length) in enumerate(zip(sums, lengths, strict=True)):
        log_probs[row, :length] = total / length
        mask[row, 1 : length + 1] = 1
    return log_probs.requires_grad_(), mask


def outputs(log_probs: Tensor) -> SimpleNamespace:
    zeros = torch.zeros_like(log_probs)
    logits = torch.zeros(len(log_probs), log_probs.shape[1] + 1, 2, dtype=log_probs.dtype)
    GIVEN[logits.untyped_storage().data_ptr()] = (logits, log_probs)
    return SimpleNamespace(log_probs=log_probs, logits=logits, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def given(logits: Tensor, _: Tensor) -> Tensor:
    """In place of `selective_log_softmax`, by which TRL 1.9.0 reads log-probs from logits."""
    return GIVEN[logits.untyped_storage().data_ptr()][1].clone()


def dpo_pair(loss: str, config: dict[str, Any], pair: dict[str, Any]) -> tuple[float, float, float]:
    settings = {
        "loss_types": [loss],
        "loss_weights": [1.0],
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "use_weighting": False,
        "label_smoothing": 0.0,
        **config,
    }
    made = trainer("trl.trainer.dpo_trainer", "DPOTrainer", settings)
    log_probs, mask = tokens(
        [pair["policy_chosen"], pair["policy_rejected"]], [pair["len_chosen"], pair["len_rejected"]]
    )
    batch = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([pair["ref_chosen"]], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor([pair["ref_rejected"]], dtype=torch.float64),
    }
    value = made._compute_loss(lambda **_: outputs(log_probs), batch, False)
    value.backward()
    assert log_probs.grad is not None
    return value.item(), log_probs.grad[0, 0].item(), log_probs.grad[1, 0].item()


def simpo_pair(config: dict[str, Any], pair: dict[str, Any]) -> tuple[float, float, float]:
    made = trainer(
        "trl.experimental.cpo.cpo_trainer",
        "CPOTrainer",
        {"loss_type": "simpo", "alpha": 0.0, "label_smoothing": 0.0, **config},
    )
    sums = [torch.tensor([pair[f"policy_{side}"]], dtype=torch.float64) for side in ("chosen", "rejected")]
    leaves = [one.requires_grad_() for one in sums]
    losses = made.cpo_loss(leaves[0] / pair["len_chosen"], leaves[1] / pair["len_rejected"])[0]
    losses.sum().backward()
    assert leaves[0].grad is not None and leaves[1].grad is not None
    return losses.item(), leaves[0].grad.item(), leaves[1].grad.item()


def kto_example(config: dict[str, Any], example: dict[str, Any]) -> tuple[float, float]:
    made = trainer("trl.trainer.kto_trainer", "KTOTrainer", {"loss_type": "kto", "calculate_KL": True, **config})
    log_probs, mask = tokens([example["policy"]], [example["length"]])
    batch = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "KL_input_ids": torch.zeros_like(mask),
        "KL_attention_mask": torch.ones_like(mask),
        "KL_completion_mask": mask,
        "label": torch.tensor([example["desirable"]]),
        "ref_logps": torch.tensor([example["ref"]], dtype=torch.float64),
        "ref_KL_logps": torch.tensor([-10.0 - Z0], dtype=torch.float64),
    }
    mismatched = torch.full_like(log_probs, -10.0 / log_probs.shape[1]).detach()
    answers = iter([outputs(mismatched), outputs(log_probs)])  # the mismatched completions come first
    value = made._compute_loss(lambda **_: next(answers), batch, False)
    value.backward()
    assert log_probs.grad is not None
    return value.item(), log_probs.grad[0, 0].item()


def row(columns: dict[str, list[Any]], number: int) -> dict[str, Any]:
    return {name: values[number] for name, values in columns.items()}


def case(loss: str, config: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    shown = ", ".join(f"{key} {value:g}" for key, value in config.items())
    made: dict[str, Any] = {"name": f"{loss}, {shown}", "params": params}
    if loss == "kto":
        numbers = [kto_example(config, row(EXAMPLES, number)) for number in range(len(EXAMPLES["policy"]))]
        inputs: dict[str, Any] = {**EXAMPLES, "z0": Z0}
        expected = {"loss": [one[0] for one in numbers], "grad_policy": [one[1] for one in numbers]}
    else:
        pairs = [row(PAIRS, number) for number in range(len(PAIRS["policy_chosen"]))]
        three = [simpo_pair(config, pair) if loss == "simpo" else dpo_pair(loss, config, pair) for pair in pairs]
        inputs = {name: values for name, values in PAIRS.items() if loss != "simpo" or not name.startswith("ref")}
        if loss == "sppo_hard":
            inputs = {name.replace("ref_", "previous_"): values for name, values in inputs.items()}
        expected = {
            "loss": [one[0] for one in three],
            "grad_policy_chosen": [one[1] for one in three],
            "grad_policy_rejected": [one[2] for one in three],
        }
    return {**made, "inputs": inputs, "expected": expected}


if __name__ == "__main__":
    source = (
        f"TRL {version('trl')}'s own code, called by tests/core/importing/make_trl_vectors.py in float64: "
        "DPOTrainer._compute_loss, KTOTrainer._compute_loss and CPOTrainer.cpo_loss (torch "
        f"{version('torch').partition('+')[0]}). params say what each loss_type is here."
    )
    text = json.dumps({"source": source, "cases": [case(*one) for one in CASES]}, indent=2)
    print(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text))

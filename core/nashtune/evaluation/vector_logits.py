"""The logits that a conformance vector may give: what a controller's statistics of the vocabulary are made of.

Legend: T = completion tokens of one sequence, V = vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.evaluation.vector_logprobs import required
from nashtune.interfaces import KLController

LOGITS = (
    "policy_logits_chosen",
    "policy_logits_rejected",
    "ref_logits_chosen",
    "ref_logits_rejected",
    "chosen_tokens",
    "rejected_tokens",
)


def read_logits(values: dict[str, Any], kl: KLController, where: str) -> None:
    """Put beside logits what an engine makes of them: log-probs, lengths and the controller's statistics.

    Args:
        values: Inputs by name, to be added to.
        kl: The controller.
        where: The place of `inputs`, for messages.

    Raises:
        InputError: a missing name, a wrong type or shape, or log-probs beside them that are others.
    """
    for side in ("chosen", "rejected"):
        names = (f"policy_logits_{side}", f"ref_logits_{side}", f"{side}_tokens")
        policy, ref, tokens = (required(values, name, where) for name in names)
        parts = (policy, ref, tokens)
        if not all(isinstance(part, list) for part in parts) or len({len(part) for part in parts}) != 1:
            raise InputError(f"{where}: {', '.join(names)} must be lists with one entry per pair")
        rows: dict[str, list[Tensor]] = {}
        for i in range(len(policy)):
            sequence = _one_sequence(policy[i], ref[i], tokens[i], kl, f"{where}, {side} of pair {i + 1}")
            for name, value in sequence.items():
                rows.setdefault(name, []).append(value)
        columns = {name: torch.stack(column) for name, column in rows.items()}
        for name in (f"policy_{side}", f"ref_{side}", f"len_{side}"):
            derived = columns.pop(name.removesuffix(f"_{side}"))
            if name in values and not torch.allclose(values[name], derived, rtol=0, atol=1e-6):
                raise InputError(f"{where}.{name}: {values[name].tolist()}, but the logits give {derived.tolist()}")
            values.setdefault(name, derived)
        values[f"statistics_{side}"] = columns


def _one_sequence(policy: Any, ref: Any, tokens: Any, kl: KLController, where: str) -> dict[str, Tensor]:
    try:
        policy_TV, ref_TV = (torch.tensor(part, dtype=torch.float64) for part in (policy, ref))
        targets_T = torch.tensor(tokens, dtype=torch.long)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: logits are [token][vocabulary] numbers and tokens integers ({error})") from error
    if policy_TV.ndim != 2 or policy_TV.shape != ref_TV.shape or targets_T.shape != policy_TV.shape[:1]:
        shapes = f"{tuple(policy_TV.shape)}, {tuple(ref_TV.shape)} and {tuple(targets_T.shape)}"
        raise InputError(
            f"{where}: policy logits, reference logits and tokens have shapes {shapes}; expected (T, V), (T, V), (T,)"
        )
    if not bool(((targets_T >= 0) & (targets_T < policy_TV.shape[1])).all()):
        raise InputError(f"{where}: tokens {tokens} are not all in 0..{policy_TV.shape[1] - 1}")
    found = {name: value.sum() for name, value in kl.token_statistics(policy_TV, ref_TV, targets_T).items()}
    for name, logits_TV in (("policy", policy_TV), ("ref", ref_TV)):
        found[name] = logits_TV.log_softmax(-1).gather(-1, targets_T.unsqueeze(-1)).sum()
    return {**found, "len": torch.tensor(float(len(targets_T)), dtype=torch.float64)}

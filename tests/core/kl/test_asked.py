"""What a KL controller gives is looked at before anybody computes with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces import KLController, PairBatch
from nashtune.kl.asked import asked_beta, asked_report

LENGTH = torch.ones(2)
BATCH = PairBatch(
    policy_chosen=-LENGTH,
    policy_rejected=-2 * LENGTH,
    anchors={},
    len_chosen=LENGTH,
    len_rejected=LENGTH,
    p_chosen=LENGTH,
)


class Given(KLController):
    def __init__(self, beta: Any, report: Any = None, per_side: bool = False) -> None:
        self.given, self.told, self.beta_per_side = beta, report, per_side  # type: ignore[misc]  # one class for all

    def beta(self, batch):
        return self.given

    def report(self, batch, beta):
        return self.told


@pytest.mark.parametrize("shape", [(), (2,), (2, 2)])
def test_a_scalar_or_one_for_each_row_or_side(shape):
    assert asked_beta(Given(torch.ones(shape), per_side=True), BATCH).shape == shape


@pytest.mark.parametrize(
    ("beta", "gave"),
    [(0.1, "float"), (None, "NoneType"), (torch.ones(3), r"a tensor of shape \(3,\)"), (torch.ones(2, 2), r"\(2, 2\)")],
)
def test_anything_else_is_named_with_what_to_return(beta, gave):
    said = (
        rf"kl Given: beta\(\) returns a tensor, a scalar or .* each of 2 rows, and gave .*{gave}; .*scalar_beta\(value"
    )
    with pytest.raises(InputError, match=said):
        asked_beta(Given(beta), BATCH)


@pytest.mark.parametrize(("report", "gave"), [(None, "NoneType"), ({"kl": 0.5}, "float for 'kl'")])
def test_a_report_is_of_tensors(report, gave):
    with pytest.raises(InputError, match=rf"kl Given: report\(\) returns a dict of tensors.*gave {gave}"):
        asked_report(Given(torch.ones(()), report), BATCH, torch.ones(()))
    assert asked_report(Given(0, {"kl": LENGTH}), BATCH, LENGTH)["kl"] is LENGTH

"""What nashtune asks of every component and spec, and what this method alone promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nashtune.plugins import Registered
from nashtune.testing import check_component, check_spec, components_of, label, specs_of

from my_method.loss import my_method_loss

PLUGIN = "my_method"
OFFERED = [
    ("loss", "my_method"),
]
SPECS = ["my_method"]


def test_the_plugin_offers_what_it_should() -> None:
    offered = [(one.component.kind, one.component.name) for one in components_of(PLUGIN)]
    assert offered == sorted(OFFERED)
    assert specs_of(PLUGIN) == sorted(SPECS)


@pytest.mark.parametrize("component", components_of(PLUGIN), ids=label)
def test_component_keeps_its_contract(component: Registered) -> None:
    check_component(component)


@pytest.mark.parametrize("name", specs_of(PLUGIN))
def test_spec_resolves_passes_its_vectors_and_trains(name: str, tmp_path: Path) -> None:
    check_spec(name, tmp_path)


def test_no_pull_beyond_the_margin() -> None:
    z_B = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    (grad_B,) = torch.autograd.grad(my_method_loss(z_B, margin=1.0).sum(), z_B)
    assert grad_B.tolist() == [-1.0, 0.0, 0.0]

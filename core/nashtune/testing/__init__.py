"""What the tests of a plugin import: contract checks for every kind of component, and a tiny model.

    import pytest
    from nashtune.testing import check_component, check_spec, components_of, label, specs_of

    @pytest.mark.parametrize("component", components_of("my_method"), ids=label)
    def test_component_keeps_its_contract(component):
        check_component(component)

    @pytest.mark.parametrize("name", specs_of("my_method"))
    def test_spec_resolves_passes_its_vectors_and_trains(name, tmp_path):
        check_spec(name, tmp_path)

Importing this imports no torch; a check does when it runs. `RULES` has the rules;
they are explained on the page Extend, Testing of the documentation (docs/extend/testing.md).
"""

from __future__ import annotations

from nashtune.testing.contract import RULES, ContractError
from nashtune.testing.dispatch import (
    check_component,
    check_kl_controller,
    check_loss,
    check_oracle,
    check_pairing,
    check_reference,
    check_sampler,
    check_schedule,
    check_stage,
)
from nashtune.testing.installed import components_of, label, specs_of
from nashtune.testing.models import CHAT_TEMPLATE, tiny_model, token_batch
from nashtune.testing.specs import check_spec

__all__ = [
    "CHAT_TEMPLATE",
    "RULES",
    "ContractError",
    "check_component",
    "check_kl_controller",
    "check_loss",
    "check_oracle",
    "check_pairing",
    "check_reference",
    "check_sampler",
    "check_schedule",
    "check_spec",
    "check_stage",
    "components_of",
    "label",
    "specs_of",
    "tiny_model",
    "token_batch",
]

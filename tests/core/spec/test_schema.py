from __future__ import annotations

import jsonschema
import pytest

from nashtune.spec.loader import load_yaml, read_yaml
from nashtune.spec.locate import list_specs
from nashtune.spec.schema import spec_schema

DPO = "loss: dpo\nkl: {name: fixed, beta: 0.1}\nreferences: {ref: base}\n"


@pytest.fixture(scope="module")
def validator():
    schema = spec_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("listed", list_specs(), ids=lambda listed: listed.name)
def test_every_spec_fits(validator, listed):
    assert list(validator.iter_errors(read_yaml(listed.file).data)) == []


@pytest.mark.parametrize(
    "text",
    [
        DPO,
        "loss: nashtune_plugins.dpo.DPOLoss",
        "loss: {name: my.module:Loss, anything: 1}",
        "loss: dpo\nkl: none\nreferences: none\noracle: none",
        "base: dpo\nkl: {beta: 0.2}",
        "base: dpo\nloss: ipo\nreferences: {ref: none}",
        "base: dpo",
        "loss: {name: ipo, tau: 1, reduction: sum}\noptimizer: {lr: 1e-5, betas: [0.9, 0.99]}",
    ],
)
def test_what_fits(validator, text):
    assert list(validator.iter_errors(load_yaml(text, "f").data)) == []


@pytest.mark.parametrize(
    "text",
    [
        DPO.replace("dpo", "dpoo"),
        DPO.replace("beta", "bta"),
        DPO.replace("0.1", "-0.1"),
        DPO.replace("0.1", "abc"),
        DPO.replace("loss", "los"),
        DPO.replace("ref: base", "ref: bse"),
        DPO + "optimizer: {lrr: 1}",
        DPO + "optimizer: {lr: 0}",
        DPO + "optimizer: {name: adam}",
        DPO + "about: {titel: x}",
        DPO + "about: {kind: ofline}",
        "kl: none",
        "loss: none",
        "loss: {label_smoothing: 0.1}",
        "loss: {name: ipo, tau: 1}",
        "loss: {name: ipo, tau: 1, reduction: summ}",
        "base: dpo\nkl: {bta: 0.2}",
        "base: [dpo]",
        "loss: dpo\nreferences: {}",
        "loss: [dpo]",
    ],
)
def test_what_does_not_fit(validator, text):
    assert list(validator.iter_errors(load_yaml(text, "f").data))


def test_documentation_reaches_the_editor():
    definitions = spec_schema()["definitions"]
    fixed = next(
        form
        for form in definitions["kl"]["anyOf"]
        if form.get("properties", {}).get("name", {}).get("const") == "fixed"
    )
    assert fixed["properties"]["beta"]["exclusiveMinimum"] == 0
    assert "Inverse temperature" in fixed["properties"]["beta"]["description"]
    assert fixed["required"] == ["name", "beta"]
    assert "plugin nashtune" in fixed["properties"]["name"]["description"]

from __future__ import annotations

import importlib

import pytest

from nashtune.plugins import API, KINDS, Component


def test_a_component_like_those_in_the_guide_has_no_problem():
    assert Component("loss", "acme", "acme_losses.loss:AcmeLoss").problem() is None


@pytest.mark.parametrize(
    ("component", "said"),
    [
        (Component("los", "acme", "a:B"), "did you mean 'loss'?"),
        (Component("loss", "Acme", "a:B"), "a name is made of a-z"),
        (Component("kl", "none", "a:B"), "is not 'none'"),
        (Component("loss", "a.b", "a:B"), "a name is made of a-z"),
        (Component("loss", "acme", "acme.Loss"), "'package.module:Class'"),
        (
            Component("loss", "acme", "a:B", api=API + 1),
            f"needs plugin API {API + 1}, this nashtune has {API}; upgrade",
        ),
        (Component("loss", "acme", "a:B", api=0), "whole number"),
        (Component("loss", "acme", "a:B", api="1"), "whole number"),
        (Component(["loss"], "acme", "a:B"), "unknown kind"),
        (Component("loss", 3, "a:B"), "a name is made of a-z"),
        (Component("loss", "acme", None), "'package.module:Class'"),
    ],
)
def test_what_is_wrong_with_a_component_is_said(component: Component, said: str):
    assert said in (component.problem() or "")


def test_a_newer_component_of_a_new_kind_is_told_to_upgrade_not_that_its_kind_is_misspelt():
    assert "upgrade" in (Component("judge", "acme", "a:B", api=API + 1).problem() or "")


def test_every_kind_names_interfaces_that_exist():
    for kind, interfaces in KINDS.items():
        for interface in interfaces:
            module, name = interface.split(":")
            assert isinstance(getattr(importlib.import_module(module), name), type), kind

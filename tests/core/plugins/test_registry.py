from __future__ import annotations

import pytest

from nashtune.errors import InputError
from nashtune.plugins import Component, Registered, Registry


def entry(plugin: str, name: str = "acme", kind: str = "loss") -> Registered:
    return Registered(Component(kind, name, f"{plugin}_pkg:Loss"), plugin, "1.0")


def test_a_name_gives_its_component_and_where_it_came_from():
    registry = Registry()
    assert registry.add(entry("a")) == []
    assert registry.get("loss", "acme") == entry("a")
    assert registry.names("loss") == ["acme"]
    assert list(registry) == [entry("a")]


def test_names_are_sorted_and_of_one_kind():
    registry = Registry()
    for name, kind in [("zeta", "loss"), ("alpha", "loss"), ("mid", "kl")]:
        registry.add(entry("a", name, kind))
    assert registry.names("loss") == ["alpha", "zeta"]


def test_an_unknown_name_gets_the_nearest_one_and_the_note():
    registry = Registry(lambda: "; plugin 'b' failed: no torch")
    registry.add(entry("a"))
    with pytest.raises(
        InputError, match=r"no loss is called 'acne'; did you mean 'acme'\? .*plugin 'b' failed: no torch"
    ):
        registry.get("loss", "acne")


def test_a_name_of_another_kind_is_recognised():
    registry = Registry()
    registry.add(entry("a", "fixed", "kl"))
    with pytest.raises(InputError, match="'fixed' is a kl, not a loss"):
        registry.get("loss", "fixed")


def test_an_unknown_kind_gets_the_nearest_one():
    with pytest.raises(InputError, match="did you mean 'loss'"):
        Registry().names("losses")


def test_nashtunes_own_name_wins_and_both_origins_are_named():
    registry = Registry()
    registry.add(entry("builtin"), own=True)
    [(loser, reason)] = registry.add(entry("third"))
    assert loser == "third"
    assert "'builtin' 1.0 (builtin_pkg:Loss)" in reason and "'third' 1.0 (third_pkg:Loss)" in reason
    assert registry.get("loss", "acme") == entry("builtin")


def test_two_others_with_one_name_make_it_unusable_and_both_are_told():
    registry = Registry()
    registry.add(entry("a"))
    losers = registry.add(entry("b"))
    assert [plugin for plugin, _ in losers] == ["a", "b"]
    with pytest.raises(InputError, match=r"loss 'acme' is given by plugin 'a' .* and by plugin 'b' .*NASHTUNE_BLOCK=b"):
        registry.get("loss", "acme")
    assert registry.names("loss") == []


def test_a_third_claim_to_a_name_is_told_of_all_three():
    registry = Registry()
    registry.add(entry("a"))
    registry.add(entry("b"))
    [(loser, reason)] = registry.add(entry("c"))
    assert loser == "c"
    assert all(f"plugin '{name}'" in reason for name in "abc")


def test_one_plugin_giving_a_name_twice_is_told_to_rename():
    registry = Registry()
    registry.add(entry("a"), own=True)
    [(loser, reason)] = registry.add(Registered(Component("loss", "acme", "a_pkg.two:Loss"), "a", "1.0"), own=True)
    assert loser == "a"
    assert "a_pkg:Loss" in reason and "a_pkg.two:Loss" in reason and "rename one" in reason


def test_a_refused_component_says_why_when_it_is_asked_for():
    registry = Registry()
    registry.refuse(Component("loss", "acme", "a:B", api=9), lambda: "needs plugin API 9")
    with pytest.raises(InputError, match="loss 'acme' cannot be used: needs plugin API 9"):
        registry.get("loss", "acme")


def test_a_component_that_was_left_out_does_not_shadow_one_that_works():
    registry = Registry()
    registry.refuse(Component("loss", "acme", "a:B", api=9), lambda: "needs plugin API 9")
    registry.add(entry("b"))
    assert registry.get("loss", "acme") == entry("b")

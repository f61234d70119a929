from __future__ import annotations

import pytest

from nashtune.errors import InputError
from nashtune.plugins.loading import load_class, split_target

CLASSES = """
    from nashtune.interfaces import Pairing, PreferenceOracle, RewardOracle

    class Good(Pairing):
        def compare(self, n, random): ...
        def most(self, n): ...

    class Half(Pairing): ...

    class Judge(PreferenceOracle):
        def compare(self, prompts, first, second): ...

    class Scorer(RewardOracle):
        def score(self, prompts, completions): ...

    number = 3
"""


def test_both_ways_of_writing_a_place_are_the_same():
    assert split_target("a.b:C") == split_target("a.b.C") == ("a.b", "C")


def test_a_class_of_the_right_kind_is_imported(site):
    site.file("classes_mod.py", CLASSES)
    assert load_class("classes_mod:Good", "pairing").__name__ == "Good"


@pytest.mark.parametrize("name", ["Judge", "Scorer"])
def test_an_oracle_may_compare_or_score(site, name):
    site.file("classes_mod.py", CLASSES)
    assert load_class(f"classes_mod.{name}", "oracle").__name__ == name


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("classes_mod:Good", "loss", "is not a loss: it must be a subclass of nashtune.interfaces.Loss"),
        ("classes_mod:Good", "oracle", "nashtune.interfaces.RewardOracle or nashtune.interfaces.PreferenceOracle"),
        ("classes_mod:Half", "pairing", "does not implement compare, most"),
        ("classes_mod:number", "pairing", "is a int, not a class"),
        ("classes_mod:God", "pairing", "did you mean 'Good'? (known: Good, Half, Judge, Scorer)"),
        ("explodes:Loss", "loss", "cannot be imported: ImportError: libcuda is missing"),
    ],
)
def test_anything_else_says_what_is_wrong(site, target, kind, said):
    site.file("classes_mod.py", CLASSES)
    site.file("explodes.py", "raise ImportError('libcuda is\\nmissing')")
    with pytest.raises(InputError) as caught:
        load_class(target, kind)
    assert said in str(caught.value)


def test_the_cause_of_a_failed_import_is_chained_for_who_debugs_it(site):
    site.file("explodes.py", "1 / 0")
    with pytest.raises(InputError) as caught:
        load_class("explodes:Loss", "loss")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

"""The kit itself: what it lists, what it imports, and that no rule is without a page and a broken component."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nashtune.errors import InputError
from nashtune.testing import RULES, ContractError, components_of, label, specs_of
from nashtune.testing.contract import PAGE

ROOT = Path(__file__).parents[3]


def test_components_and_specs_are_listed_by_plugin():
    assert {entry.plugin for entry in components_of("builtin")} == {"builtin"}
    assert "loss-dpo" in [label(entry) for entry in components_of("builtin")]
    assert "kl-fixed" in [label(entry) for entry in components_of("nashtune")]
    assert set(map(label, components_of("builtin"))) < set(map(label, components_of()))
    assert "dpo" in specs_of("builtin") and specs_of("nashtune") == []


def test_a_plugin_that_is_not_there_is_no_empty_list():
    """The trap: pytest skips a test whose list of parameters is empty."""
    with pytest.raises(InputError, match="no plugin is called 'buildin'; did you mean 'builtin'"):
        components_of("buildin")
    with pytest.raises(InputError, match="no plugin is called"):
        specs_of("my_method_2")


def test_importing_the_kit_and_listing_imports_no_torch():
    code = (
        "import sys\n"
        "from nashtune.testing import check_component, check_spec, components_of, specs_of, tiny_model\n"
        "components_of(), specs_of()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_every_rule_has_its_place_on_the_page_and_no_other():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert re.findall(r"^### ([a-z-]+)$", page, re.MULTILINE) == list(RULES)


def test_the_example_and_the_message_on_the_page_are_right():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    [code] = re.findall(r'^```python title="tests/test_my_method.py"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("my_method", "nashtune"), names)
    names["test_component_keeps_its_contract"](next(one for one in components_of() if label(one) == "kl-fixed"))
    [shown] = re.findall(r"^ContractError: (.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found = "the gradient for the log-prob of the chosen completion is 0.05, above 0"
    assert " ".join(shown.split()) == str(ContractError("loss 'my_loss' (my_method:MyLoss)", "loss-sign", found))


def test_every_rule_is_broken_by_a_test():
    """Each of these tests names the rule that its component must break, and no other."""
    named = {
        node.value
        for file in Path(__file__).parent.glob("test_broken_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    }
    assert sorted(set(RULES) - named) == []


def test_an_error_says_who_what_is_required_and_where_it_is_explained():
    error = ContractError("loss 'mine' (my:Loss)", "loss-sign", "it goes up")
    assert str(error).startswith("loss 'mine' (my:Loss) breaks `loss-sign`: it goes up. Required: at the start, ")
    assert str(error).endswith(f"See loss-sign on the page Extend, Testing of nashtune's documentation ({PAGE})")
    assert isinstance(error, AssertionError)

"""What the tests of broken components share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from nashtune.testing import ContractError, check_component

Breaks = Callable[[str], AbstractContextManager[pytest.ExceptionInfo[ContractError]]]


@pytest.fixture
def breaks() -> Breaks:
    """`with breaks(rule) as found:` what is inside breaks that rule and no other."""

    @contextmanager
    def expected(rule: str) -> Iterator[pytest.ExceptionInfo[ContractError]]:
        with pytest.raises(ContractError) as found:
            yield found
        assert found.value.rule == rule, str(found.value)

    return expected


@pytest.fixture
def finds(breaks: Breaks) -> Callable[[str, type], str]:
    """`finds(rule, component)`: what the check says; it names the rule that is broken, the component and the page."""

    def check(rule: str, component: type) -> str:
        with breaks(rule) as found:
            check_component(component)
        message = str(found.value)
        assert f" {component.__module__}:{component.__name__}" in message
        assert f"See {rule} on the page Extend, Testing of nashtune's documentation" in message
        return message

    return check

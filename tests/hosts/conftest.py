"""Tests on two hosts: see two_hosts.py. They need root, because network namespaces do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from two_hosts import Hosts, two_hosts, why_not

reason = cache(why_not)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and reason():
            item.add_marker(pytest.mark.skip(reason=reason()))


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with two_hosts() as both:
        yield both

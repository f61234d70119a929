"""Pages in a real browser: Debian's Chromium, driven by Playwright. Skipped, with the reason, where one is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from made_runs import game_run, offline_run

if TYPE_CHECKING:
    from opened import Opened

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# as root there is no sandbox; the rest keeps the browser itself from talking to anybody
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@cache
def executable() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@cache
def why_not() -> str:
    if executable() is None:
        return "no chromium here; `apt-get install chromium` brings it"
    if find_spec("playwright") is None:
        return "no playwright here; `pip install playwright` brings it, without a browser of its own"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and why_not():
            item.add_marker(pytest.mark.skip(reason=why_not()))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    from opened import PATIENCE

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=executable(), args=FLAGS, timeout=PATIENCE)
        yield found
        found.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Path]:
    """A page of an offline run, of a game and of a comparison."""
    from made_comparison import comparison
    from nashtune.html import comparison_page, run_page

    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "run": run_page.render(offline_run(folder / "offline", tiny)),
        "game": run_page.render(game_run(folder / "game", tiny)),
        "comparison": comparison_page.render(comparison(folder / "comparison")),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Opens a page; at the end of the test it must have asked for nothing and complained of nothing."""
    from opened import Opened

    found: list[Opened] = []

    def open_page(name: str | Path, *, width: int = 1280, scheme: str = "light") -> Opened:
        path = pages[name] if isinstance(name, str) else name
        found.append(Opened(browser, path, width=width, scheme=scheme))
        return found[-1]

    yield open_page
    for one in found:
        one.close()
    for one in found:
        assert one.asked == [one.address] and one.complaints == one.expected

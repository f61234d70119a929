"""The tutorials, followed as a reader follows them: files written, commands run in order, Python run, one folder each.

Only the model is another one, tiny and random, and what a run draws is short.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nashtune.cli.main import main
from ranks import free_port, run_on_ranks

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SMALL = (
    *("--data.max_length", "300", "--data.limit", "48", "--samples.prompts", "2", "--samples.max_new_tokens", "4"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
)
"""Beside the run files that ship, which are of a real model."""
DRAWN = ("--spec.sampler.max_new_tokens", "6", "--data.prompts_per_round", "4", "--data.max_length", "300")


@pytest.fixture
def folder(lightning_log: None, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, tmp_path / "models" / "my-model")
    return tmp_path


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(language, title or "", text) of each block, in order."""
    return BLOCK.findall((PAGES / page).read_text(encoding="utf-8"))


def write_files(page: str, *, change: Callable[[str], str] = str) -> None:
    for _, title, text in blocks(page):
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(change(text), encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    """The `nashtune` commands of the page's shell blocks, without the word itself."""
    text = "".join(body for language, title, body in blocks(page) if language == "sh" and not title)
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    assert all(words[0] == "nashtune" for words in found if words)
    return [words[1:] for words in found if words]


def small(words: list[str]) -> list[str]:
    """The command on a tiny model, where it would load the demonstration's."""
    if words[0] not in ("fit", "check") or "--config" not in words or "--ckpt_path" in words:
        return words
    run = words[words.index("--config") + 1]
    if run not in ("demo", "game"):
        return words
    drawn = DRAWN if run == "game" else ()
    own = {word for word in words if word.startswith("--")}
    settings = ("--policy.path", "models/my-model", *SMALL, *drawn)
    pairs = [pair for pair in zip(settings[::2], settings[1::2], strict=True) if pair[0] not in own]
    return [*words, *(word for name, value in dict(pairs).items() for word in (name, value))]


def follow(page: str, *, change: Callable[[str], str] = str, after: Callable[[int], None] = lambda _: None) -> None:
    """Run every command of a page, and a look after each."""
    for number, words in enumerate(commands(page)):
        words = [change(word) for word in small(words)]
        assert main(words) == 0, f"nashtune {' '.join(words)}"
        after(number)


def run_python(page: str) -> None:
    """Run the page's Python that is no file."""
    for language, title, text in blocks(page):
        if language == "python" and not title:
            exec(compile(textwrap.dedent(text), page, "exec"), {})


def steps_of(run: str) -> int:
    return int(json.loads(Path(run, "report.json").read_text(encoding="utf-8"))["steps"])


def test_a_first_model(folder: Path) -> None:
    follow("first-run.md")
    assert steps_of("runs/dpo-001") == 12 and not Path("runs/dpo-002").exists()
    assert "<html" in Path("runs/dpo-001/report.html").read_text(encoding="utf-8")
    run_python("first-run.md")


def test_own_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files("own-data.md")
    follow("own-data.md")
    assert steps_of("runs/dpo-001") == 4 and steps_of("runs/kto-001") == 2
    [shown] = [text for language, _, text in blocks("own-data.md") if language == "console"]
    command, *lines = shown.splitlines()
    capsys.readouterr()
    assert main(shlex.split(command.removeprefix("$ nashtune "))) == 2
    assert capsys.readouterr().err.splitlines() == lines


def test_own_reward_model(folder: Path) -> None:
    write_files("own-data.md")
    follow("own-reward-model.md")
    run_python("own-reward-model.md")
    rounds = json.loads(Path("runs/rloo-001/report.json").read_text(encoding="utf-8"))["rounds"]
    assert len(rounds) == 4 and all(one["rewards"] == 4 for one in rounds)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def in_another_terminal(script: str, port: int) -> Iterator[None]:
    """A program that serves, until the tutorial is over."""
    process = subprocess.Popen([sys.executable, script])
    end = time.monotonic() + 120
    try:
        while not listens(port):
            assert process.poll() is None and time.monotonic() < end, f"{script}: {process.returncode}"
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def test_own_judge(folder: Path) -> None:
    port = free_port()

    def on_port(text: str) -> str:
        return text.replace("8008", str(port))

    write_files("own-judge.md", change=on_port)
    counts: list[dict[str, int]] = []

    def look(_: int) -> None:
        report = json.loads(Path("runs/inpo-001/report.json").read_text(encoding="utf-8"))
        assert len(report["rounds"]) == 2
        counts.append(report["oracle"])

    with in_another_terminal("judge.py", port):
        follow("own-judge.md", change=on_port, after=look)
    assert counts[0]["comparisons"] > 0 and "unparsed" not in counts[0]
    assert counts[1] == counts[0]  # gone on with: nothing was asked again, and the counts are the run's


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin of the tutorial, as if pip had installed it in place."""
    from nashtune.plugins.manager import load_plugins

    assert main(commands("own-method.md")[0]) == 0
    write_files("own-method.md")
    place = folder / "offset-dpo"
    metadata = place / "offset_dpo-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: offset-dpo\nVersion: 0.1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[nashtune]\noffset_dpo = offset_dpo\n", encoding="utf-8")
    monkeypatch.syspath_prepend(place)
    load_plugins.cache_clear()
    yield place
    load_plugins.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "offset_dpo"]:
        del sys.modules[name]


def test_own_method(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [new, *others] = commands("own-method.md")
    assert new == ["new", "offset-dpo"]
    for words in others:
        assert main(small(words)) == 0, f"nashtune {' '.join(words)}"
        if words[0] == "show":
            shown = capsys.readouterr().out
            assert "−log σ(β(h_w − h_l) − m)" in shown and "max(0" not in shown
    tests = runpy.run_path(str(installed / "tests" / "test_offset_dpo.py"))
    tests["test_the_plugin_offers_what_it_should"]()
    [component] = tests["components_of"]("offset_dpo")
    tests["test_component_keeps_its_contract"](component)
    tests["test_without_a_margin_it_is_dpo"]()
    assert steps_of("runs/offset_dpo-001") == 8


def test_the_tests_of_all_pages_are_those_of_the_template() -> None:
    """One story: what `nashtune new` writes, what Extend, Testing explains, and what the tutorial changes."""
    template = (ROOT / "docs/plugin-template/tests/test_my_method.py").read_text(encoding="utf-8")
    parts = re.split(r"\n\n\n", template)
    shared = [part for part in parts if "def test_" in part][:-1]
    assert len(shared) == 3
    [tutorial] = [text for _, title, text in blocks("own-method.md") if title.endswith("test_offset_dpo.py")]
    page = (ROOT / "docs/extend/testing.md").read_text(encoding="utf-8")
    for part in shared:
        assert part in page
        assert part.replace("my_method", "offset_dpo") in tutorial


def test_many_gpus(folder: Path) -> None:
    [together, alone] = commands("many-gpus.md")
    words = small(together)
    for option in ("--trainer.devices", "--trainer.strategy"):
        at = words.index(option)
        del words[at : at + 2]
    given = dict(zip(together[1::2], together[2::2], strict=True))
    assert (given["--trainer.devices"], given["--trainer.strategy"]) == ("2", "ddp")
    codes = run_on_ranks(words, folder, ranks=2, strategy=("--trainer.strategy", "ddp"))
    assert codes == [0, 0], [file.read_text(encoding="utf-8") for file in folder.glob("rank-*.log")]
    assert steps_of("runs/two") == 4
    assert main(alone) == 0
    assert steps_of("runs/two") == 6


def test_every_tutorial_is_in_the_table_and_is_followed_here() -> None:
    pages = {file.name for file in PAGES.glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", (PAGES / "index.md").read_text(encoding="utf-8"))) == pages
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{page}"' in here for page in pages)

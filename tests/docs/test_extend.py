"""The examples of docs/extend are run as a reader would: files written, commands given, contracts checked."""

from __future__ import annotations

import importlib
import json
import math
import re
import runpy
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from nashtune.cli.main import main
from nashtune.plugins import KINDS

EXTEND = Path(__file__).parents[2] / "docs" / "extend"
TITLED = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREFIX = "PYTHONPATH=. nashtune "


def text_of(page: str) -> str:
    return (EXTEND / f"{page}.md").read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    """Words of every nashtune command of a page, after `nashtune`."""
    lines = "".join(SHELL.findall(text_of(page))).replace("\\\n", " ").splitlines()
    assert all(line.startswith(PREFIX) for line in lines)
    return [shlex.split(line.removeprefix(PREFIX)) for line in lines]


@pytest.fixture
def folder(lightning_log: None, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the reader works: on the path, with the tiny model and the run file of the first page."""
    shutil.copytree(tiny, tmp_path / "tiny")
    write("index", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for stages, which start processes
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(page: str, folder: Path) -> None:
    for name, text in TITLED.findall(text_of(page)):
        (folder / name).write_text(text, encoding="utf-8")
    importlib.invalidate_caches()


@pytest.mark.loads
@pytest.mark.parametrize("page", KINDS)
def test_commands_of_a_page_work(page: str, folder: Path, capfd: pytest.CaptureFixture[str]):
    write(page, folder)
    given = commands(page)
    assert any(words[0] in ("fit", "run") for words in given)
    for words in given:
        assert main(words) == 0, f"nashtune {shlex.join(words)}\n{capfd.readouterr().err}"
    if page == "kl":  # what the page says of its examples
        falling, steering = (
            json.loads((folder / f"runs/{run}-001/report.json").read_text()) for run in ("dpo", "rloo")
        )
        assert falling["beta"] == pytest.approx(0.1 * 0.9**2)
        assert [one["beta"] for one in steering["rounds"]] == pytest.approx([0.1, 0.0951], abs=5e-5)
        assert steering["beta"] == pytest.approx(0.1 * math.exp(-0.05) ** 2, rel=1e-5)


@pytest.mark.parametrize("page", KINDS)
def test_the_contracts_of_a_page_are_kept(page: str, folder: Path):
    write(page, folder)
    tests = runpy.run_path(str(folder / f"test_my_{page}.py"))
    found = [test for name, test in tests.items() if name.startswith("test_")]
    assert found
    for test in found:
        test()


@pytest.mark.parametrize("page", KINDS)
def test_the_first_example_is_short(page: str):
    """About ten lines, without imports, documentation and blank ones."""
    code = next(text for name, text in TITLED.findall(text_of(page)) if name == f"my_{page}.py")
    plain = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)
    lines = [line for line in plain.splitlines() if line.strip() and not re.match(r"(from|import) ", line)]
    assert 5 <= len(lines) <= 20


def test_new_prints_what_the_page_shows(folder: Path, capsys: pytest.CaptureFixture[str]):
    [(command, shown)] = re.findall(
        r"^```console\n\$ nashtune (.*?)\n(.*?)^```$", text_of("index"), re.MULTILINE | re.DOTALL
    )
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out == textwrap.dedent(shown)
    [listed] = re.findall(r"^```text\nmy-method/\n(.*?)^```$", text_of("index"), re.MULTILINE | re.DOTALL)
    made = folder / "my-method"
    files = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert {line.split()[0] for line in listed.splitlines()} == files


def test_the_margin_loss_without_a_margin_is_dpo(folder: Path):
    import torch

    from nashtune.interfaces import Anchor, PairBatch, Step
    from nashtune.spec.resolve import build, resolve

    write("loss", folder)
    logp = -30.0 * torch.rand(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = PairBatch(
        policy_chosen=logp[0].requires_grad_(),
        policy_rejected=logp[1],
        len_chosen=torch.ones(9),
        len_rejected=torch.ones(9),
        anchors={"ref": Anchor(chosen=logp[2], rejected=logp[3])},
    )
    step = Step(beta=torch.tensor(0.1, dtype=torch.float64))
    mine = importlib.import_module("my_loss").MarginLoss(margin=0.0)(batch, step).values
    torch.testing.assert_close(mine, build(resolve("dpo").loss)(batch, step).values, rtol=0, atol=1e-12)


def test_the_uniform_reference_is_uniform(folder: Path, load):
    import math

    from nashtune.testing import token_batch

    write("reference", folder)
    reference = importlib.import_module("my_reference").UniformReference()
    policy = load(folder / "tiny")
    reference.attach(policy)
    given = reference.logprobs(token_batch([(3, 4), (2, 1)]), None)
    size = policy.loaded().config.vocab_size
    assert given.lengths.tolist() == [4, 1]
    assert given.sums.tolist() == pytest.approx([-4 * math.log(size), -math.log(size)])
    assert given.token_logp.tolist() == pytest.approx([-math.log(size)] * 5)

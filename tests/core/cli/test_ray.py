"""The command line of `nashtune ray`, up to the point at which Ray is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nashtune.cli import ray as front
from nashtune.cli.commands import CLUSTER
from nashtune.cli.main import main
from nashtune.onray import cluster
from nashtune.onray.layout import Layout

TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would have been started."""
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(cluster, "ray_library", lambda: None)
    monkeypatch.setattr(cluster, "launch", lambda *asked: (seen.append(asked), 5)[1])
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return seen


def test_its_summary_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert CLUSTER == {"ray": front.SUMMARY}
    assert main(["--help"]) == 0 and f"ray        {front.SUMMARY}" in capsys.readouterr().out
    assert main(["ray", "--help"]) == 0
    assert "pip install 'nashtune[ray]'" in capsys.readouterr().out


def test_a_command_is_handed_on_as_it_is_with_what_it_trusts(
    launched: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "3")  # of a job whose script has started Ray, with three tasks
    options = ["--env", "JUDGE_KEY", "fit", "--spec", "dpo", "--spec.kl.beta=1", *TWO, "--allow-import", "mine"]
    assert main(["ray", *options]) == 5
    ((layout, command, told),) = launched
    assert layout == Layout(1, 2, "auto")
    assert command == ["fit", "--spec", "dpo", "--spec.kl.beta=1", *TWO, "--allow-import", "mine"]
    assert told["JUDGE_KEY"] == "secret" and "SLURM_PROCID" not in told


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "nashtune ray: which command? For example `nashtune ray fit --spec dpo ...`"),
        (["fti"], "nashtune ray: 'fti' is not started on a cluster; did you mean 'fit'? (known: fit, predict, test,"),
        (["compare", "dpo"], "'compare' is not started on a cluster"),
        (["fit", "--help"], "its options are those of the command; run `nashtune fit --help`"),
        (["--evn", "X", "fit"], "unknown option --evn; did you mean '--env'?"),
        (["--env", "NOT_SET_ANYWHERE", "fit"], "--env NOT_SET_ANYWHERE: is not set here"),
        (["fit", "--spec", "dpoo", *TWO], "no spec is called 'dpoo'; did you mean 'dpo'?"),
        (["fit", "--spec", "dpo", "--trainer.strategy", "ddp"], "trainer.devices: Ray must be told how many"),
        (["fit", "--spec", "dpo", "--trainer.strategy", "fsdp2", "--trainer.devices", "2"], "runs of ddp alone"),
        (["fit", "--spec", "dpo", "--trainer.strategy", "dpp", "--trainer.devices", "2"], "did you mean 'ddp'?"),
    ],
)
def test_a_wrong_command_starts_nothing(
    argv: list[str], said: str, launched: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ray", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and not launched


def test_inside_torchrun_it_starts_nothing(
    launched: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["ray", "fit", "--spec", "dpo", *TWO]) == 2
    assert "this one was started with others by torchrun" in capsys.readouterr().err and not launched


def test_without_the_package_the_next_step_is_named_and_torch_is_not_imported(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "from nashtune.cli.main import main\n"
        f"code = main(['ray', 'fit', '--spec', 'dpo', *{TWO}])\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "2 False\n", done.stderr
    assert "the package ray is not installed; run `pip install 'nashtune[ray]'`" in done.stderr

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module

import pytest

import nashtune
from nashtune.cli import main as front
from nashtune.cli.commands import HEAVY, LIGHTNING, MODULES, THIN
from nashtune.cli.main import main
from nashtune.errors import CheckFailed, InputError, Interrupted
from nashtune.spec import runoptions
from nashtune.terminal import MESSAGE, message


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_every_command_is_explained(argv, capsys):
    assert main(argv) == 0
    out = capsys.readouterr().out
    for name, summary in {**LIGHTNING, **THIN, **HEAVY}.items():
        assert any(line.split() == [name, *summary.split()] for line in out.splitlines())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nashtune {nashtune.__version__}\n"


def test_the_package_is_the_command_too():
    done = subprocess.run([sys.executable, "-m", "nashtune", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"nashtune {nashtune.__version__}\n"), done.stderr


@pytest.mark.parametrize("name", [*THIN, *HEAVY])
def test_the_summary_is_the_modules_own(name):
    module = import_module(f"nashtune.cli.{MODULES.get(name, name)}")
    assert {**THIN, **HEAVY}[name] == module.SUMMARY


@pytest.mark.parametrize("name", [*THIN, *HEAVY])
def test_every_command_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"usage: nashtune {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lst"], "unknown command 'lst'; did you mean 'list'?"),
        (["--vers"], "unknown option '--vers'; did you mean '--version'?"),
        (["list", "--jsn"], "unknown option --jsn; did you mean '--json'?"),
        (["list", "--js"], "unknown option --js; did you mean '--json'?"),
        (["list", "--jsn=1"], "unknown option --jsn; did you mean '--json'?"),
        (["list", "dpo"], "unexpected argument 'dpo'; run `nashtune list --help`"),
        (["show"], "the following arguments are required: SPEC; run `nashtune show --help`"),
        (["list", "--spec.kl.beta", "1"], "unknown option --spec.kl.beta"),
        (["show", "dop"], "no spec is called 'dop'; did you mean 'dpo'?"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(argv, said, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_every_finding_is_a_line_of_its_own(capsys):
    assert main(["show", "dpo", "--spec.kl.bta", "1", "--spec.loss.x=2"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: --spec.") for line in lines)


@pytest.mark.parametrize("name", list(LIGHTNING))
def test_training_commands_pass_everything_through(name, monkeypatch):
    seen = []

    class Lightning:
        @staticmethod
        def run(subcommand: str, argv: list[str]) -> int:
            seen.append((subcommand, argv))
            return 0

    known = {"nashtune.cli.lightning": Lightning, "nashtune.spec.runoptions": runoptions}
    monkeypatch.setattr(front, "import_module", known.__getitem__)
    argv = ["--spec", "dpo", "--config", "demo", "--spec.kl.beta=1", "--trainer.max_steps", "5", "--new.option=1"]
    assert main([name, *argv]) == 0
    assert main([name, "--help"]) == 0
    assert main([name, "--ckpt_path", "x"]) == 0
    assert seen == [(name, argv), (name, ["--help"]), (name, ["--ckpt_path", "x"])]


@pytest.fixture
def command(monkeypatch):
    """Replaces what `nashtune list` does."""

    def install(action):
        class Module:
            SUMMARY = "x"

            @staticmethod
            def add_arguments(parser: argparse.ArgumentParser) -> None:
                pass

            @staticmethod
            def run(args: argparse.Namespace) -> int:
                return action()

        monkeypatch.setattr(front, "import_module", lambda name: Module)

    return install


def test_a_failed_check_is_exit_code_1(command, capsys):
    def action():
        raise CheckFailed("loss differs by 1e-3")

    command(action)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "failed: loss differs by 1e-3\n"


def test_an_interrupt_is_quiet(command, capsys):
    def action():
        raise KeyboardInterrupt

    command(action)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_defect_of_ours_keeps_its_traceback(command):
    def action():
        raise RuntimeError("ours")

    command(action)
    with pytest.raises(RuntimeError, match="ours"):
        main(["list"])


def test_the_place_of_an_error_is_shown_when_asked(monkeypatch):
    monkeypatch.setenv("NASHTUNE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no spec is called"):
        main(["show", "dop"])


def nashtune_process(*argv: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nashtune", *argv], text=True, **kwargs)


def test_a_reader_that_stops_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "nashtune", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("argv", [["list"], ["show", "dpo", "--json"], ["plugins"], ["show", "dop"]])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_no_error(argv, closed):
    words = [sys.executable, "-m", "nashtune", *argv]
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *words], capture_output=True, text=True, check=False)
    assert done.returncode == (2 if "dop" in argv else 0), done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_of_the_errors_that_stops_early_is_no_error():
    words = [sys.executable, "-m", "nashtune", "show", "dop"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 141


def test_a_console_of_others_whose_reader_stops_early_is_no_failure(command):
    def action():
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 (as rich does)

    command(action)
    assert main(["list"]) == 141


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("x\nerror: fake \x1b[2J"), "error: x\n  error: fake \\x1b[2J\n"),
        (CheckFailed("x\nfailed: fake \u202e"), "failed: x\n  failed: fake \\u202e\n"),
        (Interrupted("x\nerror: fake \x9b", code=3), "x\n  error: fake \\x9b\n"),
    ],
)
def test_what_a_message_repeats_cannot_steer_the_terminal(command, capsys, error, said):
    def action():
        raise error

    command(action)
    assert main(["list"]) != 0
    assert capsys.readouterr().err == said


def test_an_output_without_greek_letters_is_no_error():
    done = nashtune_process("show", "dpo", capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    assert done.returncode == 0
    assert "log ?(" in done.stdout
    done = nashtune_process("show", "dpo", "--json", capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    assert "\\u03c3" in done.stdout


def test_errors_have_no_traceback():
    done = nashtune_process("check", "dop", capture_output=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: no spec is called 'dop'; did you mean 'dpo'?")


@pytest.mark.parametrize("command", ["fit", "run", "compare", "ray"])
def test_a_name_that_is_no_utf_8_is_refused_before_anything_is_made(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--spec", "dpo", "--run_dir", "caf\udce9"]) == 2
    assert capsys.readouterr().err.startswith(r"error: --run_dir: caf\xe9 is no UTF-8, and a run writes down what")
    assert list(tmp_path.iterdir()) == []


def test_what_a_message_repeats_is_cut(capsys):
    assert main(["check", "dpo", "--spec.kl.beta", "1" * 100_000]) == 2
    said = capsys.readouterr().err
    assert "spec.kl.beta" in said and "111... (100" in said and "characters)" in said and len(said) < 2000
    long = "x " * 50_000
    assert len(message(f"begins {long} ends")) < MESSAGE + 100
    assert message(f"begins {long} ends").startswith("begins x") and message(long + "ends").endswith("x ends")
    path = "/".join(["folder"] * 200)
    assert message(path) == path

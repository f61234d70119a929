"""The commands that only read must start at once: they import neither torch nor anything that does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "lightning", "transformers", "peft", "datasets", "torchmetrics", "jsonschema", "numpy"]
SCRIPT = """
import contextlib, io, json, sys
from nashtune.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    code = main({argv!r})
print(json.dumps([code, sorted(set({heavy!r}) & set(sys.modules))]))
"""


def imported(argv: list[str], heavy: list[str]) -> tuple[int, list[str]]:
    script = SCRIPT.format(argv=argv, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    code, found = json.loads(done.stdout)
    return code, found


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("list", 0),
        ("list --runs", 0),
        ("show epsilon_dpo", 0),
        ("diff dpo epsilon_dpo", 1),
        ("check --all", 0),
        ("schema", 0),
        ("plugins --json", 0),
        ("show dpo --spec.kl.bta 1", 2),
        ("check dpo --spec.loss ipo", 2),
        ("nonsense", 2),
    ],
)
def test_thin_commands_import_nothing_heavy(command, code):
    assert imported(command.split(), HEAVY) == (code, [])


def test_checking_a_run_imports_no_torch(tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n')
    argv = ["check", "dpo", "--policy.path", str(tiny), "--data.train", str(rows), "--policy.lora", "{r: 4}"]
    assert imported(argv, ["torch", "lightning", "transformers", "peft"]) == (0, [])


@pytest.mark.parametrize("spec", ["onpo", "inpo", "online_dpo", "nash_ema_pg"])
def test_planning_a_game_imports_no_torch(spec, tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "Q{i}"}}\n' for i in range(3)))
    argv = ["check", spec, "--spec.oracle=vader", "--policy.path", str(tiny), "--data.train", str(rows)]
    argv += ["--data.prompts_per_round=3"]
    assert imported(argv, ["torch", "lightning", "transformers", "peft"]) == (0, [])


@pytest.mark.parametrize(
    "command",
    [
        "fit --spec dpoo --config demo",
        "fit --spec dpo --spec.kl.beta x",
        "validate --config dmeo",
        "fit --spec dpo --config ./wrong.yaml",
        "fit --spec onpo",
        "fit --spec onpo --spec.oracle vader --spec.sampler.completions 6",
    ],
)
def test_training_commands_refuse_a_typo_before_torch(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("data: {batch_size: 0}\ntrainer: {max_step: 1}")
    assert imported(command.split(), ["torch", "lightning", "transformers"]) == (2, [])


def test_constructing_offline_and_fixed_kl_imports_no_torch():
    script = (
        "import sys\nfrom nashtune.spec.resolve import build, resolve\nspec = resolve('dpo')\n"
        "build(spec.schedule).rounds()\nassert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0

"""The migration pages: their configs are imported as the pages show, and their converters make rows that are read."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import textwrap
from pathlib import Path

import pytest

from lab import pair_rows, write_rows
from nashtune.cli.main import main
from nashtune.importing.tables import list_tables, load_table
from nashtune.spec.resolve import resolve

PAGES = Path(__file__).parents[2] / "docs" / "migrate"
FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOOLS = {"trl": "dpo_config", "llamafactory": "llama3_dpo", "axolotl": "axolotl_dpo"}


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, tmp_path / "models" / "my-model")
    write_rows(tmp_path / "train.jsonl", pair_rows(8))
    return tmp_path


@pytest.mark.parametrize("tool", TOOLS)
def test_a_config_is_imported_as_its_page_shows(tool: str, folder: Path, capsys):
    for name, text in FILE.findall(page(tool)):
        (folder / name).write_text(text)
    if tool == "llamafactory":
        turns = [{"from": "human", "value": "Hello"}]
        row = {
            "conversations": turns,
            "chosen": {"from": "gpt", "value": "Hi"},
            "rejected": {"from": "gpt", "value": "No"},
        }
        (folder / "my_pairs.json").write_text(json.dumps([{**row, "system": "Be brief."}] * 8))
        runpy.run_path("convert.py")
    (block,) = CONSOLE.findall(page(tool))
    command, *lines = textwrap.dedent(block).splitlines()
    assert main(shlex.split(command.removeprefix("$ "))[1:]) == 0
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = [" ".join(line.split()) for line in lines]
    assert printed[: len(shown)] == shown
    assert main(["check", "--spec", f"{TOOLS[tool]}.spec.yaml", "--config", f"{TOOLS[tool]}.run.yaml"]) == 0


def test_the_spec_is_the_one_of_the_page(folder: Path, capsys):
    for name, text in FILE.findall(page("trl")):
        (folder / name).write_text(text)
    assert main(["import", "trl", "dpo_config.yaml", "--trainer", "dpo"]) == 0
    assert f"```yaml\n{(folder / 'dpo_config.spec.yaml').read_text()}```" in page("trl")


def test_the_other_converter_of_the_pages(folder: Path, capsys):
    files = dict(FILE.findall(page("axolotl")))
    (folder / "rename.py").write_text(files["rename.py"])
    user, good, bad = (
        {"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Yes"), ("assistant", "No"))
    )
    write_rows(folder / "pairs.jsonl", [{"messages": [user], "accepted": good, "other": bad}])
    runpy.run_path("rename.py")
    assert main(["check", "dpo", "--policy.path", "models/my-model", "--data.train", "renamed.jsonl"]) == 0


def test_the_converter_of_the_alpaca_format(folder: Path, capsys):
    (folder / "alpaca.py").write_text(dict(FILE.findall(page("llamafactory")))["alpaca.py"])
    asked = {"instruction": "Add.", "input": "1 and 2"}
    pair, example = {**asked, "chosen": "3", "rejected": "4"}, {**asked, "output": "3", "kto_tag": True}
    for spec, row in (("dpo", pair), ("kto", example)):
        (folder / "alpaca.json").write_text(json.dumps([row, {**row, "input": ""}] * 4))
        runpy.run_path("alpaca.py")
        first, second = (json.loads(line) for line in (folder / "alpaca.jsonl").read_text().splitlines()[:2])
        assert (first["prompt"], second["prompt"]) == ("Add.\n1 and 2", "Add.")
        assert main(["check", spec, "--policy.path", "models/my-model", "--data.train", "alpaca.jsonl"]) == 0


def test_the_table_of_the_overview_is_a_table(folder: Path, monkeypatch):
    from nashtune.importing import tables
    from nashtune.importing.config import read_config
    from nashtune.importing.translate import translate

    (text,) = re.findall(r"```yaml\n(tool: MyTrainer\n.*?)```", page("index"), re.DOTALL)
    (folder / "mytrainer.yaml").write_text(text)
    known = list_tables()
    monkeypatch.setattr(tables, "list_tables", lambda: {**known, "mytrainer": folder / "mytrainer.yaml"})
    table = load_table("mytrainer")
    (folder / "mine.yaml").write_text("model: a/b\nwandb: on\n")
    translation = translate(read_config(folder / "mine.yaml", table.names(), table.renamed), table)
    assert translation.settings["policy.path"] == "hub:a/b" and translation.settings["spec.kl.beta"] == 0.1


@pytest.mark.parametrize("tool", TOOLS)
def test_every_loss_that_is_imported_is_on_its_page(tool: str):
    for method in load_table(tool).methods:
        if method.base:
            assert f"`{method.base}`" in page(tool), f"{tool}.md does not say what {method.name} is"


def test_the_numbers_of_the_overview():
    from nashtune.evaluation.vectors import run_case

    pair = {"policy_chosen": [-30.0], "policy_rejected": [-12.0], "len_chosen": [20], "len_rejected": [5]}
    references = {"ref_chosen": [-33.0], "ref_rejected": [-11.0]}
    for spec, value in (("dpo", "0.5130152524"), ("ipo_sum", "1.0"), ("ipo", "21.6225"), ("cdpo", "0.5530152524")):
        found = run_case(resolve(spec), {"inputs": {**pair, **references}})["loss"]
        assert found == pytest.approx([float(value)], abs=1e-9) and value in page("index")
    for params, value in (((0.1, 5.0), "0.9190"), ((2.5, 0.55), "0.3484")):
        loss = {"beta": params[0], "gamma_beta_ratio": params[1]}
        found = run_case(resolve("simpo"), {"params": {"loss": loss}, "inputs": pair})["loss"]
        assert found == pytest.approx([float(value)], abs=5e-5) and value in page("index")


def test_the_files_of_openrlhf_pass_check(folder: Path, capsys):
    text = page("openrlhf")
    for name, content in FILE.findall(text):
        (folder / name).write_text(content)
    (block,) = CONSOLE.findall(text)
    command, first = block.splitlines()
    assert main(shlex.split(command.removeprefix("$ "))[1:]) == 0
    assert capsys.readouterr().out.splitlines()[0] == first
    spec = resolve("mine.spec.yaml")
    assert (spec.loss.args["label_smoothing"], spec.optimizer.betas, spec.optimizer.warmup) == (0.1, (0.9, 0.95), 0.03)

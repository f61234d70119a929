from __future__ import annotations

import json

from nashtune.cli import list as command
from nashtune.cli.main import main
from nashtune.spec.locate import Listed, list_specs


def test_every_spec_is_listed(capsys):
    assert main(["list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(entries) == [listed.name for listed in list_specs()]
    assert entries["dpo"]["title"].startswith("Direct Preference Optimization")
    assert entries["dpo"]["loss"] == "dpo"
    assert entries["cdpo"]["kl"] == "fixed"  # through its base
    assert entries["simpo"]["kl"] == "none"
    assert all(entry["problem"] == "" for entry in entries.values())


def test_the_table_has_a_line_for_each(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for listed in list_specs():
        assert any(line.split()[:1] == [listed.name] for line in out.splitlines())
    assert "arXiv:2305.18290" in out


def test_run_files(capsys):
    assert main(["list", "--runs", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    demo = next(entry for entry in entries if entry["name"] == "demo")
    assert "policy" in demo["sections"]
    assert main(["list", "--runs"]) == 0
    assert "demo" in capsys.readouterr().out


def test_a_broken_file_is_shown_by_name_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("loss: dpo\nloss: ipo\n")
    (tmp_path / "good.yaml").write_text("about: {title: Good}\nloss: dpo\n")
    listed = [Listed(name, "mine", tmp_path / f"{name}.yaml") for name in ("broken", "good")]
    monkeypatch.setattr(command, "list_specs", lambda: listed)
    monkeypatch.setattr(command, "list_runs", lambda: listed)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "BROKEN: broken.yaml:2: 'loss' is given twice" in out
    assert "Good" in out
    assert main(["list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["problem"].startswith("broken.yaml:2")
    assert second["problem"] == ""
    assert main(["list", "--runs"]) == 0
    assert "BROKEN: broken.yaml:2" in capsys.readouterr().out

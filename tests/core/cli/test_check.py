from __future__ import annotations

import json

import pytest

from nashtune.cli.main import main
from nashtune.spec.locate import list_specs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_right_spec(capsys):
    assert main(["check", "dpo"]) == 0
    assert capsys.readouterr().out == "dpo: ok\n"
    assert main(["check", "--spec", "dpo"]) == 0
    assert capsys.readouterr().out == "dpo: ok\n"


def test_all_of_them(capsys):
    assert main(["check", "--all"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{listed.name}: ok" for listed in list_specs()]


def test_a_module_that_lacks_what_it_imports_is_found_without_being_imported(folder, capsys, monkeypatch):
    text = "from nashtune.interfaces import Loss\nclass Mine(Loss):\n    def __call__(self, batch, step): ...\n"
    (folder / "lacking_loss.py").write_text(f"import not_there_at_all\n{text}")
    monkeypatch.syspath_prepend(folder)
    words = ["check", "dpo", "--spec.loss", "lacking_loss.Mine", "--allow-import", "lacking_loss"]
    assert main(words) == 2
    file = folder / "lacking_loss.py"
    said = f"loss 'lacking_loss.Mine': {file}:1: there is no module not_there_at_all; is its package installed?"
    assert said in capsys.readouterr().err
    file.write_text(text + "raise RuntimeError('imported')\n")
    assert main(words) == 0  # what is there by its source is not imported


def test_one_line_for_each_finding(folder, capsys):
    (folder / "mine.yaml").write_text("loss: {name: dpo, lable_smoothing: 0.1}\nkl:\n  name: fixed\n  beta: x\n")
    assert main(["check", "mine.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: mine.yaml:1: loss.lable_smoothing is not an option of 'dpo'; did you mean 'label_smoothing'? "
        "(known: label_smoothing)",
        "error: mine.yaml:4: kl.beta: expected a number > 0, found 'x'",
    ]


def test_json(folder, capsys):
    (folder / "mine.yaml").write_text("loss: dpoo\n")
    assert main(["check", "mine.yaml", "--json"]) == 2
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["name"], result["ok"], len(result["findings"])) == ("mine.yaml", False, 1)
    assert main(["check", "--all", "--json"]) == 0
    assert {result["ok"] for result in json.loads(capsys.readouterr().out)} == {True}


def test_settings_are_checked(capsys):
    assert main(["check", "dpo", "--spec.kl.beta", "0"]) == 2
    assert capsys.readouterr().err == "error: --spec.kl.beta: expected a number > 0, found 0\n"
    assert (
        main(["check", "dpo", "--spec.loss", "ipo", "--spec.loss.tau=1", "--spec.loss.reduction=sum", "--spec.kl=none"])
        == 0
    )


def test_build_finds_what_only_the_class_knows(capsys):
    assert main(["check", "dpo", "--build"]) == 0
    capsys.readouterr()
    assert main(["check", "dpo", "--spec.loss.label_smoothing", "0.7", "--build"]) == 2
    assert "label_smoothing" in capsys.readouterr().err


def test_a_run(folder, tiny, capsys):
    (folder / "rows.jsonl").write_text('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n' * 3)
    (folder / "run.yaml").write_text(
        f"spec: {{kl: {{beta: 0.3}}}}\npolicy: {{path: {tiny}}}\ndata: {{train: rows.jsonl, batch_size: 2}}\n"
    )
    assert main(["check", "dpo", "--config", "run.yaml"]) == 0
    out = capsys.readouterr().out
    assert "dpo: ok\n  data.train: 3 pairs from rows.jsonl\n" in out
    assert "steps: 2 in all" in out
    argv = ["check", "--spec=dpo", "--config=run.yaml", "--trainer.max_steps", "1", "--spec.kl.beta", "2"]
    assert main(argv) == 0
    assert "steps: 1 in all" in capsys.readouterr().out
    assert main(["check", "dpo", "--config", "run.yaml", "--data.train", "nowhere.jsonl", "--policy.path", "gone"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: nowhere.jsonl: no such file")
    assert "policy.path: no folder gone" in lines[1]


def test_the_plan_of_a_game(folder, tiny, capsys):
    (folder / "rows.jsonl").write_text("".join(f'{{"prompt": "Q{i}"}}\n' for i in range(9)))
    argv = ["check", "onpo", "--spec.oracle", "vader", "--policy.path", str(tiny), "--data.train", "rows.jsonl"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "game: 3 rounds of 3 prompts, 8 completions each\n" in out
    assert "steps: at most 6 in all, 6 updates of 1\n" in out
    assert main([*argv, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["plan"]["steps"], result["plan"]["generations"], result["plan"]["updates"]) == (6, 72, 6)
    assert main(["check", "dpo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["plan"] is None


def test_the_phases_and_the_pairing_of_a_game_are_checked_without_a_run(capsys):
    assert main(["check", "onpo"]) == 0
    capsys.readouterr()
    assert main(["check", "onpo", "--spec.sampler.completions", "6"]) == 2
    assert "--spec.sampler.completions: the pairing tournament needs a power of two" in capsys.readouterr().err


def test_a_saved_config_stands_alone(folder, tiny, capsys):
    import yaml

    from nashtune.spec.resolve import resolve

    (folder / "rows.jsonl").write_text('{"prompt": "Q", "chosen": "a", "rejected": "b"}\n')
    config = {"spec": resolve("ipo").to_dict(), "policy": {"path": str(tiny)}, "data": {"train": "rows.jsonl"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["check", "--config", "config.yaml"]) == 0
    assert capsys.readouterr().out.startswith("ipo: ok\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "check: which spec? Give its name or file, or --all"),
        (["dpo", "--all"], "check: --all goes with --build and --json only"),
        (["dpo", "--spec", "ipo"], "check: two specs, dpo and --spec ipo; give one"),
        (["dpo", "--config"], "--config needs a name or a file"),
        (["dpo", "--config", "dmeo"], "no run file is called 'dmeo'; did you mean 'demo'?"),
        (["dpo", "--trianer.max_steps", "5"], "unknown option --trianer.max_steps"),
        (["dpo", "ipo"], "unexpected argument 'ipo'"),
    ],
)
def test_a_wrong_command_line(argv, said, capsys):
    assert main(["check", *argv]) == 2
    assert said in capsys.readouterr().err


def test_build_looks_at_the_oracles_model(folder, tiny, heads, capsys):
    """Without it the files are not opened, and the command says so."""
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Hello {i}"}) + "\n" for i in range(4)))
    data = "{train: prompts.jsonl, prompts_per_round: 2}"
    (folder / "run.yaml").write_text(f"policy: {{path: {tiny}}}\ndata: {data}\n")
    command = ["check", "uncertainty_rlhf_rloo", "--config", "run.yaml", "--spec.schedule.steps", "2"]
    command += ["--spec.oracle.path", str(heads), "--spec.oracle.members"]
    assert main([*command, "3"]) == 0
    assert "the model's files are looked at by fit, or by check --build" in capsys.readouterr().out
    assert main([*command, "3", "--build"]) == 0
    assert main([*command, "5", "--build"]) == 2
    assert "3 outputs" in capsys.readouterr().err

"""What is read and what is written: never run, never overwritten, and every message with its place."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nashtune import cli
from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.importing.jsonfile import read_json
from nashtune.importing.tables import load_table
from nashtune.spec.loader import LARGEST
from nashtune.spec.resolve import resolve
from nashtune.spec.run import load_runs
from nashtune.trust import REMOTE


def test_files_are_not_overwritten_and_not_executed(imported, refused, tmp_path):
    first = imported("trl", "loss_type: sigmoid\n")
    text = Path(first["spec"]).read_text()
    assert first["written"] == [first["spec"], first["run"]]
    again = imported("trl", "loss_type: sigmoid\n")  # the same text: as it should be
    assert (again["code"], again["written"]) == (first["code"], [])
    Path(first["run"]).unlink()
    assert imported("trl", "loss_type: sigmoid\n")["written"] == [first["run"]]
    (tmp_path / "config.yaml").write_text("loss_type: sigmoid\nbeta: 0.2\n")
    message = refused("import", "trl", "config.yaml")
    assert "config.spec.yaml: is there already with another text, and is not overwritten; move it away, or" in message
    assert Path(first["spec"]).read_text() == text
    (tmp_path / "code.py").write_text("raise SystemExit(3)\n")
    assert "Python files are not executed" in refused("import", "trl", "code.py")
    (tmp_path / "training_args.bin").write_bytes(b"\x80\x04.")
    assert "pickles (training_args.bin) are not opened" in refused("import", "trl", "training_args.bin")
    (tmp_path / "tag.yaml").write_text("beta: !!python/object/apply:os.system ['true']\n")
    assert "no code" in refused("import", "trl", "tag.yaml")


def test_a_wrong_value_is_named_where_it_stands_and_leaves_no_file(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("beta: -1\nlearning_rate: fast\nper_device_train_batch_size: 1.5\n")
    assert main(["import", "trl", "bad.yaml", "--trainer", "dpo"]) == 2
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "error: bad.yaml:1: beta: kl.beta: expected a number > 0, found -1",
        "error: bad.yaml:2: learning_rate: optimizer.lr: expected a number > 0, found 'fast'",
        "error: bad.yaml:3: per_device_train_batch_size: data.batch_size: expected a whole number > 0, found 1.5",
        "error: nothing was written",
    ]
    assert list(tmp_path.glob("bad.*.yaml")) == []


def test_a_key_of_a_tracker_is_not_shown(imported):
    result = imported(
        "trl", "loss_type: sigmoid\nhub_token: secret-of-mine\nwandb_api_key: other-secret\n", "--allow-lossy"
    )
    assert "secret" not in str(result) and "secret" not in Path(result["spec"]).read_text()


def test_a_value_cannot_end_the_comment_that_it_stands_in(imported):
    result = imported("trl", 'beta: 0.1\nrpo_alpha: "1\\nkl: {name: fixed, beta: 9}"\n', "--allow-lossy")
    assert resolve(result["spec"]).kl.args["beta"] == 0.1


def test_an_unknown_tool(refused):
    assert "no table for 'trll'; did you mean 'trl'?" in refused("import", "trll", "x.yaml")
    assert "no table for 'TRL'; did you mean 'trl'?" in refused("import", "TRL", "x.yaml")
    for name in ("openrlhf", "OpenRLHF"):
        assert f"no table for '{name}': OpenRLHF takes flags" in (message := refused("import", name, "x.sh"))
        assert "docs/migrate/openrlhf.md" in message
    assert "x.yaml: no such file" in refused("import", "trl", "x.yaml")


def test_a_file_that_is_not_there_has_a_neighbour(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dpo_config.yaml").write_text("loss_type: sigmoid\n")
    message = refused("import", "trl", "dpo_cofnig.yaml")
    assert "dpo_cofnig.yaml: no such file; did you mean 'dpo_config.yaml'? Give the config that the" in message


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_file_in_place_of_the_folder_is_an_error(errors, tmp_path, folder: str):
    (tmp_path / "file").write_text("")
    assert "--out: file is a file, and no folder; name a folder" in errors("trl", "loss_type: ipo\n", "--out", folder)


def test_a_link_to_nothing_is_not_written_through(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("loss_type: ipo\n")
    (tmp_path / "c.run.yaml").symlink_to("elsewhere.yaml")
    assert "c.run.yaml: is there already" in refused("import", "trl", "c.yaml")
    assert not (tmp_path / "elsewhere.yaml").exists() and not (tmp_path / "c.spec.yaml").exists()


def test_an_unknown_key_has_its_nearest_and_the_next_step(errors):
    message = errors("trl", "loss_type: ipo\nlerning_rate: 1\n")
    assert "c.yaml:2: lerning_rate: not in the table of TRL 1.16.0; did you mean 'learning_rate'?" in message
    assert "remove what you can do without, or add --allow-lossy" in message


def test_two_keys_for_one_thing_are_refused(errors):
    message = errors("trl", "dtype: bfloat16\ntorch_dtype: float32\n")
    assert "c.yaml:2: torch_dtype is an earlier name of dtype (c.yaml:1)" in message


def test_all_conflicts_are_listed_at_once(errors):
    text = "beta: 0.2\ndtype: bfloat16\ntorch_dtype: float32\neval_strategy: 'no'\nevaluation_strategy: epoch\n"
    text += "dataset_name: a.jsonl\ndatasets: [{path: b.jsonl}]\nno_such_key: 1\n"
    message = errors("trl", text, "--trainer", "dpo")
    assert sorted(line.removeprefix("error: ").partition(";")[0] for line in message.splitlines()) == [
        "1 key has no counterpart here, and nothing was written",
        "c.yaml:3: torch_dtype is an earlier name of dtype (c.yaml:2)",
        "c.yaml:5: evaluation_strategy is an earlier name of eval_strategy (c.yaml:4)",
        "c.yaml:7: datasets.path and dataset_name (c.yaml:6) both set data.train",
        "c.yaml:8: no_such_key: not in the table of TRL 1.16.0",
    ]
    assert "no_such_key" not in (message := errors("trl", text, "--trainer", "dpo", "--allow-lossy"))
    assert message.count("keep one of them") == 3 and "nothing was written" in message
    assert errors("trl", text).count("keep one of them") == 2  # and the trainer is not known, without which no more is


@pytest.mark.parametrize(
    ("lines", "precision"),
    [
        ("dtype: bfloat16\ntorch_dtype: null", "bf16"),
        ("dtype: null\ntorch_dtype: bfloat16", "bf16"),
        ("dtype: bfloat16\ntorch_dtype: bfloat16", "bf16"),
    ],
)
def test_nothing_and_the_same_under_two_names_are_no_conflict(imported, lines: str, precision: str):
    result = imported("trl", f"loss_type: sigmoid\n{lines}\nmax_steps: 5\neval_steps: '5.0'\n")
    assert load_runs([result["run"]]).data["policy"]["precision"] == precision


def test_one_number_written_in_two_ways_is_no_conflict(imported):
    result = imported("axolotl", "rl: dpo\nrl_beta: 0.20\ndpo_beta: '2e-1'\nlearning_rate: 1e-5\n")
    assert resolve(result["spec"]).kl.args["beta"] == 0.2


@pytest.mark.parametrize(
    ("tool", "line", "says"),
    [
        ("trl", "lr_scheduler_type: inverse_sqrt", "without it spec.optimizer.decay is constant (the spec dpo)"),
        ("trl", "optim: lion", "without it spec.optimizer.name is rmsprop (the spec dpo)"),
        (
            "trl",
            "num_train_epochs: 2.5",
            "without it trainer.max_epochs is not set: a run needs it, or trainer.max_steps",
        ),
        ("trl", "dtype: float16", "without it policy.precision is fp32 (the default here)"),
        ("trl", "max_length: null", "without it data.max_length is 1024 (the default here)"),
        ("trl", "warmup_ratio: 1.5", "without it spec.optimizer.warmup is 150 (the spec dpo)"),
        ("trl", "dataset_name: rows.txt", "without it data.train is not set"),
        ("trl", "bf16: maybe", "without it trainer.precision is 32-true (the default here)"),
        ("trl", "save_steps: often", "without it save_every is 50 (the default here)"),
        ("axolotl", "adapter: qlora", "without the key all weights are trained"),
        ("axolotl", "adapter: lora\nlora_alpha: 8", "without it policy.lora.r is 16 (the default here)"),
    ],
)
def test_a_lost_line_says_what_is_used_instead(imported, tool: str, line: str, says: str):
    start = "loss_type: sigmoid\n" if tool == "trl" else "rl: dpo\nlearning_rate: 1e-5\n"
    result = imported(tool, f"{start}{line}\n", "--allow-lossy")
    assert any(says in item["text"] for item in result["keys"] if item["outcome"] == "lost")
    (shown, *_) = [one for one in Path(result["spec"]).read_text().splitlines() if says in one]
    assert shown.startswith("# LOST: config.yaml")


def test_what_is_used_instead_is_what_a_run_takes(imported):
    from nashtune.importing.instead import OF_RUNS

    result = imported("trl", "loss_type: sigmoid\nlr_scheduler_type: inverse_sqrt\n", "--allow-lossy")
    assert resolve(result["spec"]).optimizer.decay == "constant"
    source = (Path(cli.__file__).parent / "lightning.py").read_text()
    for key in ("save_every", "keep_checkpoints"):
        assert f'"--{key}", type=PositiveInt, default={OF_RUNS[key]},' in source


@pytest.mark.parametrize(
    ("tool", "start"),
    [("trl", "loss_type: sigmoid"), ("llamafactory", "stage: dpo"), ("axolotl", "rl: dpo\nlearning_rate: 1e-5")],
)
def test_code_of_a_model_is_left_out_with_a_note(imported, tool: str, start: str):
    result = imported(tool, f"{start}\ntrust_remote_code: true\n")
    assert result["by_key"]["trust_remote_code"]["outcome"] == "left"
    (note,) = [note for note in result["notes"] if note.startswith("trust_remote_code: ")]
    assert f"`{REMOTE} MODEL`" in note
    result = imported(tool, f"{start}\ntrust_remote_code: false\n", "--out", "other")
    assert result["by_key"]["trust_remote_code"]["outcome"] == "same"
    assert not any("trust_remote_code" in note for note in result["notes"])


def test_input_error_is_what_a_library_user_sees():
    with pytest.raises(InputError, match="no table for 'nemo'"):
        load_table("nemo")


def test_json_with_characters_of_two_codes_and_tabs(imported):
    text = '{\n\t"loss_type":\t"sigmoid",\n\t"run_name": "\\ud83d\\ude80 a\\/b",\n'
    text += '"model_name_or_path": "m\\ud83d\\ude80/x y"}\n'
    result = imported("trl", text, name="config.json")
    assert result["by_key"]["run_name"]["where"] == "config.json:3"
    assert load_runs([result["run"]]).data["policy"]["path"] == "m\U0001f680/x y"


def test_the_lines_of_a_json_file(tmp_path: Path):
    file = tmp_path / "c.json"
    data = {"a": {"b": [1, {"c": "}\\"}], "d": None}, "e": [], "f": -1.5e-3, "": {}}
    file.write_text(json.dumps(data, indent=1))
    found = read_json(file)
    assert found.data == data
    lines = file.read_text().splitlines()
    for path, line in found.lines.items():
        if path and isinstance(path[-1], str):
            assert lines[line - 1].strip().startswith(json.dumps(path[-1])), path
    assert found.lines["a", "b", 1, "c"] == 6 and found.lines["f",] == 12
    file.write_text(json.dumps(data, separators=(",", ":")))
    assert read_json(file).data == data and set(read_json(file).lines.values()) == {1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n"b": }', "c.json:2: broken JSON: Expecting value"),
        ('{"a": 1,\n"a": 2}', "c.json:2: 'a' is given twice (first on line 1)"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": "\\ud83d"}', "half of a character"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "a config is a mapping of keys to values"),
    ],
)
def test_broken_json_is_an_error_with_its_place(refused, tmp_path, monkeypatch, text: str, says: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(text)
    assert says in refused("import", "trl", "c.json")


def test_what_is_to_be_typed_next_is_quoted_for_the_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's mine.yaml").write_text("loss_type: sigmoid\n")
    main(["import", "trl", "it's mine.yaml", "--out", "my runs"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: "))
    assert words == ["nashtune", "fit", "--spec", words[3], "--config", words[5]]
    spec, run = tmp_path / words[3], tmp_path / words[5]
    assert spec.is_file() and run.is_file() and resolve(str(spec)).loss.name == "dpo"
    for file in (spec, run):
        (shown,) = [line for line in file.read_text().splitlines() if line.startswith("# run:  ")]
        assert shlex.split(shown.removeprefix("# run:  ")) == words


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("c.json", b'{"a": 1,\n"b": "\xe9"}', "c.json:2: not UTF-8 text; save the file as UTF-8"),
        ("c.yaml", b"a: 1\nb: \xe9\n", "c.yaml:2: not UTF-8 text; save the file as UTF-8"),
        ("c.json", b" " * (LARGEST + 1), f"c.json: more than {LARGEST // 2**20} MiB"),
        ("c.yaml", b"#" * (LARGEST + 1), f"c.yaml: more than {LARGEST // 2**20} MiB"),
        ("c.yaml", b"loss_type: ipo\nbeta: 1\nbeta: 2\n", "c.yaml:3: 'beta' is given twice (first on line 2)"),
        ("c.yaml", b"", "c.yaml: a config is a mapping of keys to values, found nothing"),
        ("c.yaml", b"- beta: 1\n", "c.yaml: a config is a mapping of keys to values, found a list"),
        ("c.txt", b"beta: 1\n", "c.txt: expected a .yaml, .yml, .json file"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place(refused, tmp_path, monkeypatch, name, data, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(data)
    assert says in refused("import", "trl", name)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_yaml_of_aliases_of_aliases_is_refused(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    assert "values, aliases (*name) written out" in refused("import", "trl", "bomb.yaml")

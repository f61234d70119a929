"""A plugin that somebody else wrote is installed beside the wheel, with four bad ones, and trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plugins(fresh) -> dict[str, dict]:
    done = fresh.nashtune("plugins", "--json")
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)}


def test_every_plugin_is_listed_with_its_status(plugins):
    assert {name: one["status"] for name, one in plugins.items()} == {
        "nashtune": "ok",
        "builtin": "ok",
        "acme": "ok",
        "broken": "failed",
        "duplicate": "refused",
        "misspelt": "failed",
        "too_new": "refused",
    }


def test_the_good_one_is_listed_with_what_it_brings(plugins):
    acme = plugins["acme"]
    assert (acme["dist"], acme["version"], acme["reason"]) == ("nashtune-acme", "1.2.0", "")
    [loss] = acme["components"]
    assert (loss["kind"], loss["name"]) == ("loss", "acme_square")
    assert len(acme["spec_dirs"]) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", ["ModuleNotFoundError: No module named 'a_package_that_is_not_installed'"]),
        ("duplicate", ["pairing 'best_worst'", "nashtune.pairing.ranked:BestWorst", "duplicate_losses:Mine"]),
        ("too_new", ["loss 'futuristic' needs plugin API 2", "upgrade nashtune"]),
        ("misspelt", ["'nashtune_component' is not a hook", "did you mean 'nashtune_components'?"]),
    ],
)
def test_each_bad_one_says_what_is_wrong(plugins, name, said):
    for words in said:
        assert words in plugins[name]["reason"]


def test_each_bad_one_is_said_on_one_line_of_stderr(fresh):
    lines = fresh.nashtune("list").stderr.splitlines()
    assert [line.split("'")[1] for line in lines] == ["broken", "duplicate", "misspelt", "too_new"]
    assert fresh.nashtune("plugins").stderr == ""  # its table has them


def test_what_a_bad_one_brings_in_good_order_can_be_used(plugins):
    assert [one["name"] for one in plugins["duplicate"]["components"]] == ["duplicates_own"]


def test_check_passes_for_its_spec_by_name(fresh):
    done = fresh.nashtune("check", "acme")
    assert done.returncode == 0, done.stderr


def test_show_names_the_plugin_each_component_comes_from(fresh):
    done = fresh.nashtune("show", "acme")
    assert done.returncode == 0, done.stderr
    assert "acme_square" in done.stdout and "1.2.0" in done.stdout


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("futuristic", "loss 'futuristic' cannot be used: its plugin cannot be used in full, as said above"),
        ("misspelt", "plugin 'misspelt' (nashtune-misspelt 0.5.0) failed"),
        ("acme_squar", "did you mean 'acme_square'?"),
    ],
)
def test_using_what_is_not_there_says_which_plugin_is_the_reason(fresh, loss, said):
    done = fresh.nashtune("check", "acme", "--spec.loss", loss)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_strict_makes_the_bad_ones_fatal_and_blocking_them_helps(fresh):
    done = fresh.nashtune("list", NASHTUNE_STRICT_PLUGINS="1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for name in ("broken", "duplicate", "misspelt", "too_new"):
        assert f"plugin '{name}'" in done.stderr
    blocked = "broken,duplicate,misspelt,too_new"
    done = fresh.nashtune("list", NASHTUNE_STRICT_PLUGINS="1", NASHTUNE_BLOCK=blocked)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_trains_with_its_loss_and_its_spec_by_name(fresh, tiny, tmp_path):
    rows = [{"prompt": f"Is {i} odd?", "chosen": "Yes" + "!" * (i % 3), "rejected": "No"} for i in range(8)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_file = tmp_path / "run.yaml"
    run = {
        "policy": {"path": str(tiny)},
        "data": {"train": str(data), "validation": str(data), "batch_size": 4, "max_length": 128},
        "trainer": {"accelerator": "cpu", "max_epochs": 10, "enable_progress_bar": False},
        "samples": {"prompts": 0},
        "spec": {"optimizer": {"lr": 1e-2}},
    }
    run_file.write_text(yaml.safe_dump(run))
    folder = tmp_path / "run"
    done = fresh.nashtune("fit", "--spec", "acme", "--config", str(run_file), "--run_dir", str(folder))
    assert done.returncode == 0, done.stderr
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["spec"]["loss"] == {"name": "acme_square", "target": 2.0}
    held_out = json.loads((folder / "report.json").read_text())["held_out"]
    assert held_out["loss"] < 1.0  # (margin - 2)², 4 at the start, where every margin is 0
    assert held_out["accuracy"] == 1.0


def test_a_spec_that_needs_a_blocked_plugin_names_it(fresh, tmp_path: Path):
    spec = tmp_path / "mine.yaml"
    spec.write_text("loss: {name: acme_square}\nkl: {name: fixed, beta: 0.1}\nreferences: {ref: base}\n")
    done = fresh.nashtune("check", str(spec), NASHTUNE_BLOCK="acme")
    assert done.returncode == 2
    assert "plugin 'acme' (nashtune-acme 1.2.0) is blocked by NASHTUNE_BLOCK" in " ".join(done.stderr.split())

"""Folders of an oracle and members of an ensemble are counted before anything loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.models.reward_folder import RewardFile
from nashtune.spec.members import check_folders
from nashtune.spec.model import Spec
from nashtune.spec.resolve import resolve
from nashtune.training.game import Game


@pytest.fixture
def heads(tmp_path: Path):
    """A folder that says how many outputs its head has; nothing else of it is looked at."""

    def heads(members: int, name: str = "export") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        ones = [1.0] * members
        file = RewardFile(members=members, gain=ones, bias=[0.0] * members, template="chat", max_length=9)
        file.write(folder)
        return folder

    return heads


def check(path: str | Path, spec: str = "uncertainty_rlhf", **oracle: object) -> None:
    check_folders(with_oracle(spec, {"name": "reward_ensemble", "path": str(path), **oracle}))


def with_oracle(spec: str, oracle: dict[str, object]) -> Spec:
    return resolve({**resolve(spec).to_dict(), "oracle": oracle})


@pytest.mark.parametrize(("members", "estimate", "least"), [(1, None, 2), (2, 0, 3)])
def test_a_variance_takes_two_members_beside_the_one_that_is_the_reward(heads, members, estimate, least) -> None:
    given = {} if estimate is None else {"estimate": estimate}
    with pytest.raises(InputError) as caught:
        check(heads(members), **given)
    text = str(caught.value)
    assert "oracle.path" in text and f"{members} member" in text
    assert f"kl 'variance_weighted' reads the variance of the rewards, which takes at least {least}" in text
    check(heads(least, "more"), **given)


def test_who_reads_no_variance_may_have_one_member(heads) -> None:
    one = heads(1)
    for spec in ("rloo", "ppo_lcb"):
        check(one, spec=spec)  # raises where it refuses
    with pytest.raises(InputError, match="1 member, and kl"):
        check(one, spec="uncertainty_rlhf")


def test_folders_of_members_are_counted(heads, tmp_path) -> None:
    one = heads(1, "members/seed-1")
    with pytest.raises(InputError, match="1 member, and kl"):
        check(tmp_path / "members")
    (tmp_path / "members" / "logs").mkdir()
    (tmp_path / "members" / "notes.txt").write_text("a folder without a model is no member")
    with pytest.raises(InputError, match="1 member, and kl"):
        check(tmp_path / "members")
    two = heads(1, "members/seed-2")
    check(tmp_path / "members")
    spec = "uncertainty_rlhf"
    both, alone = ({"name": "reward_ensemble", "paths": paths} for paths in ([str(one), str(two)], [str(one)]))
    check_folders(with_oracle(spec, both))
    with pytest.raises(InputError, match=r"oracle\.paths: .*seed-1: 1 member, and kl"):
        check_folders(with_oracle(spec, alone))


def test_a_member_without_nashtunes_file_is_counted_by_its_head(tmp_path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForSequenceClassification"]}))
    save_file({"score.weight": np.zeros((1, 4), dtype="float32")}, folder / "model.safetensors")
    with pytest.raises(InputError, match="1 member, and kl"):
        check(folder)


@pytest.mark.parametrize("oracle", ["reward_model", "reward_ensemble", "preference_model"])
def test_a_missing_folder_is_named_by_check_without_torch(oracle: str) -> None:
    spec = "onpo" if oracle == "preference_model" else "rloo"
    argv = ["check", spec, "--spec.oracle", oracle, "--spec.oracle.path", "/nonexist"]
    code = (
        f"import sys; from nashtune.cli.main import main\ncode = main({argv!r})\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "oracle.path: no folder /nonexist" in done.stderr


def test_fit_refuses_before_data_and_models_are_looked_at(heads, capsys) -> None:
    oracle = ["--spec.oracle", "reward_ensemble", "--spec.oracle.path", str(heads(1))]
    assert main(["fit", "--spec", "uncertainty_rlhf", "--policy.path", "nowhere", *oracle]) == 2
    assert "1 member, and kl 'variance_weighted'" in capsys.readouterr().err


def test_folders_of_the_hub_are_looked_at_when_the_run_has_them(heads, monkeypatch) -> None:
    folder = heads(1)
    check("@members/export")
    monkeypatch.setattr("nashtune.spec.members.resolve_export", lambda path, option: folder)
    check("hub:somebody/reward")
    spec = with_oracle("uncertainty_rlhf", {"name": "reward_ensemble", "path": "hub:somebody/reward"})
    prepared = []
    oracle = SimpleNamespace(prepare=lambda: prepared.append(True))
    sampler = SimpleNamespace(prepare=lambda: None)
    game = SimpleNamespace(oracle=oracle, sampler=sampler, _module=SimpleNamespace(spec=spec))
    with pytest.raises(InputError, match=r"oracle\.path: hub:somebody/reward: 1 member, and kl"):
        Game.prepare(game)  # type: ignore[arg-type]
    assert prepared == [True]

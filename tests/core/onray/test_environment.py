"""The variables of a run's processes: those of torchrun, and nothing of SLURM's."""

from __future__ import annotations

import pytest

from nashtune.errors import InputError
from nashtune.launcher import Launcher, is_rank_0, launcher
from nashtune.onray import environment
from nashtune.onray.environment import handed_on, of_rank, outside_slurm

TORCHRUN = {
    **{"RANK": "5", "LOCAL_RANK": "2", "GROUP_RANK": "1"},
    **{"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "GROUP_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
}
"""What torchrun gives the third of three processes on the second of two machines."""


def last_rank(own: dict[str, str], told: dict[str, str]) -> dict[str, str]:
    return of_rank(own, told, machine=1, machines=2, local=2, processes=3, meeting=("10.0.0.1", 29500))


def test_a_process_has_what_torchrun_gives_it() -> None:
    found = last_rank({"PATH": "/bin", "RANK": "9"}, {})
    assert TORCHRUN.items() <= found.items()
    assert found["PATH"] == "/bin" and found["TORCHELASTIC_RUN_ID"]


def test_it_is_known_to_be_of_ray_and_slurms_numbers_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that was started by `srun` on the second machine has SLURM_PROCID 1, and process 0 may be there."""
    own = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "NODE_RANK": "1"}
    found = of_rank(own, {}, machine=0, machines=2, local=0, processes=3, meeting=("10.0.0.1", 29500))
    for name in own:
        monkeypatch.delenv(name, raising=False)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert launcher() == Launcher("Ray", 6)
    assert is_rank_0()
    assert not [name for name in found if name.startswith("SLURM_")]


def test_threads_are_torchruns_unless_the_command_says_how_many() -> None:
    of_the_actor = {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "4,5,6"}
    assert last_rank(of_the_actor, {})["OMP_NUM_THREADS"] == "1"
    assert last_rank(of_the_actor, {"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "2"
    assert last_rank(of_the_actor, {})["CUDA_VISIBLE_DEVICES"] == "4,5,6"


def test_the_command_hands_on_settings_and_secrets_only_by_name() -> None:
    environ = {
        **{"NASHTUNE_CACHE": "/shared", "NCCL_SOCKET_IFNAME": "eth1", "GLOO_SOCKET_IFNAME": "lo", "HF_HOME": "/hf"},
        **{"JUDGE_KEY": "secret", "PATH": "/home/me/bin", "CUDA_VISIBLE_DEVICES": "7", "SLURM_PROCID": "0"},
    }
    settings = dict(list(environ.items())[:4])
    assert handed_on(environ, []) == settings
    assert handed_on(environ, ["JUDGE_KEY"]) == {**settings, "JUDGE_KEY": "secret"}
    with pytest.raises(InputError, match="--env JUGDE_KEY: is not set here"):
        handed_on(environ, ["JUGDE_KEY"])


def test_what_looks_like_a_secret_is_handed_on_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(environment, "note", said.append)
    plain = {"HF_HOME": "/hf", "NASHTUNE_CACHE": "/shared"}
    secret = {"HF_TOKEN": "hf_of_mine", "NASHTUNE_JUDGE_URL": "https://me:word@judge/v1", "TORCH_API_KEY": "k1"}
    assert handed_on({**plain, **secret}, []) == plain
    assert [line.partition(" ")[0] for line in said] == list(secret) and "--env HF_TOKEN" in said[0]
    assert "hf_of_mine" not in "".join(said) and "word" not in "".join(said)
    assert handed_on({**plain, **secret}, list(secret)) == {**plain, **secret}


def test_slurms_variables_are_hidden_while_the_command_is_read() -> None:
    environ = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "HOME": "/root"}
    before = dict(environ)
    with pytest.raises(KeyError), outside_slurm(environ):
        assert environ == {"HOME": "/root"}
        raise KeyError
    assert environ == before

"""A key is in the environment and goes to the judge; it is nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chat_stub import ANSWERS, ChatStub, Reply, chat_stub, said
from lab import Lab, write_rows
from nashtune.cli.main import main
from nashtune.spec.secrets import find_secrets

CANARY = "canary-3f9c2b"
GAME = ("--spec.schedule.rounds", "1", "--spec.sampler.completions", "2", "--spec.sampler.max_new_tokens", "4")


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatStub]:
    """A judge that says whatever it was sent, the key too."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    with chat_stub() as stub:
        yield stub


def everywhere(*folders: Path) -> str:
    """Names and contents of all files."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return "\n".join(f"{path} {path.read_bytes().decode('latin-1')}" for path in files)


@pytest.mark.loads
def test_the_key_is_sent_to_the_judge_and_written_nowhere(
    lab: Lab,
    judge: ChatStub,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checkpoints, logs, journal, snapshots, config, report, model card, cache and both streams, after a whole game."""

    def reply(body: dict[str, Any]) -> Reply:
        first, second = ANSWERS.search(body["messages"][0]["content"]).groups()  # type: ignore[union-attr]
        return said(f"your key is {CANARY} {'[[A]]' if first > second else '[[B]]'}")  # no ties: a step is to be made

    judge.reply = reply
    write_rows(lab.folder / "train.jsonl", [{"prompt": f"Question {i}"} for i in range(4)])
    run = yaml.safe_load(lab.run_file.read_text())
    run["data"] = {"train": "train.jsonl", "batch_size": 2, "max_length": 64}
    run["trainer"]["max_epochs"] = 1
    lab.run_file.write_text(yaml.safe_dump(run))
    monkeypatch.setenv("NASHTUNE_CACHE", str(lab.folder / "cache"))
    keyed = ("--spec.oracle", "judge", "--spec.oracle.url", judge.url, "--spec.oracle.model", "stub")
    folder = lab.fit(*GAME, *keyed, "--spec.oracle.api_key_env", "JUDGE_KEY", spec="online_dpo")
    assert {headers["Authorization"] for headers in judge.headers} == {f"Bearer {CANARY}"}
    shown = capfd.readouterr()
    assert f"the key in JUDGE_KEY is sent to {judge.url}" in caplog.text
    assert CANARY not in caplog.text + shown.out + shown.err
    found = everywhere(folder, lab.folder / "cache")
    assert "your key is *** [[" in found  # so the answers were looked through
    assert CANARY not in found
    assert "JUDGE_KEY" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("logger", "where"),
    [
        ({"class_path": "lightning.pytorch.loggers.CometLogger", "init_args": {"api_key": CANARY}}, "api_key"),
        (
            {
                "class_path": "lightning.pytorch.loggers.MLFlowLogger",
                "init_args": {"tracking_uri": f"https://me:{CANARY}@host"},
            },
            "tracking_uri",
        ),
    ],
)
@pytest.mark.parametrize("command", ["fit", "check"])
def test_a_secret_in_a_run_file(
    lab: Lab, refused: Callable[..., str], logger: dict[str, object], where: str, command: str
) -> None:
    (lab.folder / "more.yaml").write_text(yaml.safe_dump({"trainer": {"logger": logger}}))
    message = refused(command, "--spec", "dpo", "--config", "run.yaml", "--config", "more.yaml")
    assert f"{where}: " in message and "it would be stored with the run" in message and CANARY not in message
    assert not (lab.folder / "runs").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--spec.oracle.extra", f"{{api_key: {CANARY}}}"),
        ("--spec.oracle.url", f"http://me:{CANARY}@host/v1"),
        ("--spec.sampler", "vllm", "--spec.sampler.servers", f"['http://me:{CANARY}@host:8000']"),
    ],
)
def test_a_secret_in_a_spec(lab: Lab, refused: Callable[..., str], options: tuple[str, ...]) -> None:
    judge = ("--spec.oracle", "judge", "--spec.oracle.model", "m", "--spec.oracle.url", "http://host/v1")
    message = refused("check", "online_dpo", *judge, *options)
    assert "it would be stored with the run" in message and CANARY not in message


def test_a_key_in_place_of_its_variables_name(refused: Callable[..., str]) -> None:
    options = ("--spec.oracle", "judge", "--spec.oracle.url", "http://host/v1", "--spec.oracle.model", "m")
    message = refused("check", "online_dpo", *options, "--spec.oracle.api_key_env", "sk-canary-1", "--build")
    assert "this is no name of an environment variable" in message and "sk-canary-1" not in message


def test_a_checkpoint_does_not_bring_the_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, CANARY)
    run = lab.fit("--trainer.max_steps", "1")
    assert CANARY not in everywhere(run)
    assert main(["export", str(run), "--out", str(lab.folder / "out")]) == 0
    assert CANARY not in everywhere(lab.folder / "out")
    assert os.environ["HF_TOKEN"] == CANARY


def test_what_counts_as_a_secret() -> None:
    secret = {
        "a": {"api_key": "x"},
        "hf_token": "x",
        "password": 12345,
        "client_secret": "x",
        "list": ["ftp://a:b@c"],
        "passphrase": ["one", "two"],
        "db_pwd": "x",
        "keys": ["x"],
        "x1": "sk-abcdefghij0123456789abcd",
        "x2": "ghp_" + "a1" * 18,
        "x3": "hf_" + "aB" * 17,
        "x4": "Bearer abcdefgh12345",
        "x5": "https://host/v1?a=1&api_key=abc",
        "x6": "az://store/x?sv=1&sig=abc",
        "x7": "https://me@host/v1",
        "x8": "-----BEGIN RSA PRIVATE KEY-----",
    }
    assert [path[-1] for path, _ in find_secrets(secret)] == ["api_key", "hf_token", "password", "client_secret", 0] + [
        name for name in secret if name in ("passphrase", "db_pwd", "keys") or name[0] == "x"
    ]
    plain = {
        "api_key_env": "NAME",
        "sort_by_key": "cpu_time_total",
        "experiment_key": "abc",
        "use_token": True,
        "token": None,
        "a1": "abfss://container@account.dfs.core.windows.net/x",
        "a2": "ssh://git@host/x",
        "a3": "https://host/v1?mail=a@b&page_token=",
        "a4": "the bearer of the ring, task-sk-1, ask-and-risk-nothing-of-a-long-name",
        "max_tokens": 3,
        "eos_token": "</s>",
        "batch_tokens": 4,
        "url": "http://host:80/a@b",
    }
    assert list(find_secrets(plain)) == []


def test_a_long_text_takes_no_time() -> None:
    """The pattern for addresses looks at each letter once, or this would take minutes."""
    assert list(find_secrets(["a" * 500_000, "a" * 250_000 + "://" + "b" * 250_000, "a://" * 100_000])) == []

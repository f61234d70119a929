"""What is said of the trainings of a comparison: what they go on from, how long they take, how they go on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nashtune.comparison import train
from nashtune.errors import Interrupted


def entry(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, spec=SimpleNamespace(to_dict=dict), config={})


@pytest.fixture
def trained(monkeypatch):
    """Runs that were asked for; nothing is trained."""
    found = []
    monkeypatch.setattr(train, "train", lambda run, config, work: found.append((run, config["seed_everything"])))
    return found


def test_each_is_looked_at_before_it_begins(tmp_path, trained):
    said: list[str] = []
    looked: list[int] = []
    train.train_all(
        [entry("a"), entry("b")], (3, 4), tmp_path, said.append, lock=0, check=lambda: looked.append(len(trained))
    )
    assert looked == [0, 1, 2, 3]
    assert [seed for _, seed in trained] == [3, 3, 4, 4]
    assert said[0].startswith("train 1/4 a, seed 3, ")
    assert "of training left" not in said[0]
    assert "about 0 s of training left: " in said[1]


def test_what_a_training_goes_on_from(tmp_path, trained):
    run = tmp_path / "runs/a/seed-0"
    (run / "checkpoints").mkdir(parents=True)
    for step in (8, 11):
        (run / "checkpoints" / f"step={step}.ckpt").touch()
    said: list[str] = []
    train.train_all([entry("a")], (0,), tmp_path, said.append, lock=0, check=lambda: None)
    assert said[0].endswith(f"{run}, from step 11 on")


def test_the_command_that_goes_on_is_that_of_the_comparison(tmp_path, monkeypatch):
    def stopped(*args):
        raise Interrupted("`nashtune fit` was stopped", code=143)

    monkeypatch.setattr(train, "train", stopped)
    with pytest.raises(Interrupted, match=f"`nashtune compare --run_dir {tmp_path}` goes on with it") as caught:
        train.train_all([entry("a")], (0,), tmp_path, lambda text: None, lock=0, check=lambda: None)
    assert caught.value.code == 143


@pytest.mark.parametrize(("seconds", "words"), [(20.0, "20 s"), (600.0, "10 min"), (9000.0, "2.5 h")])
def test_times_in_words(seconds, words):
    assert train._minutes(seconds) == words

from __future__ import annotations

import math
import os
import pickle
import random
import resource
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lab import Lab
from nashtune import __version__
from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.training.checkpoint import (
    AtomicCheckpointIO,
    checkpoints_in,
    newest_checkpoint,
    note_other_version,
    read_checkpoint,
)
from nashtune.training.generators import random_state, set_random_state
from nashtune.training.saving import Checkpoints
from nashtune.training.stopping import Stopping

CPU = torch.device("cpu")


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Limits how large a file this process may write, as a full disk does: the write fails half-way."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def test_disk_full_while_saving_keeps_the_old_checkpoint_whole(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "checkpoints" / "step=1.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"weights": torch.zeros(10)}, path)
    before = path.read_bytes()
    small_disk(50_000)
    with pytest.raises(InputError, match=r"could not be written.*earlier checkpoints .* are whole"):
        io.save_checkpoint({"weights": torch.zeros(100_000)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["step=1.ckpt"]


def test_a_run_that_meets_a_full_disk_stops_and_resumes(
    lab: Lab, refused: Callable[..., str], small_disk: Callable[[int], None]
) -> None:
    whole = lab.fit("--save_every", "1", run="whole")
    run = lab.fit("--save_every", "1", "--trainer.max_steps", "2", run="run")
    size = newest_checkpoint(run).stat().st_size
    small_disk(size // 2)
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "-1")
    assert "could not be written" in message and "--ckpt_path last" in message
    small_disk(resource.RLIM_INFINITY)
    assert newest_checkpoint(run).name == "step=2.ckpt"
    lab.fit("--ckpt_path", "last", "--trainer.max_steps", "-1", spec=None, run="run")
    ours, theirs = (read_checkpoint(newest_checkpoint(r))["state_dict"] for r in (whole, run))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_random_state_survives_a_safe_load(tmp_path: Path) -> None:
    torch.save(random_state(CPU), tmp_path / "rng.pt")
    first = (random.random(), np.random.rand(), torch.rand(3).tolist())
    set_random_state(torch.load(tmp_path / "rng.pt", weights_only=True), CPU)
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == first


def test_a_rank_keeps_the_generator_of_its_own_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 devices to 2 and back: what is saved knows no other device, and comes to the one that the rank has now."""
    generators = {torch.device("cuda", index): torch.full((16,), index, dtype=torch.uint8) for index in range(8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", generators.__getitem__)
    saved = [random_state(device) for device in generators]
    assert [[int(one[0]) for one in state["cuda"]] for state in saved] == [[index] for index in range(8)]
    placed: dict[Any, int] = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: placed.update({device: int(state[0])}))
    two = (torch.device("cuda", 0), torch.device("cuda", 1))
    for state, device in zip(saved[6:], two, strict=True):
        set_random_state(state, device)
    assert placed == {two[0]: 6, two[1]: 7}
    set_random_state(saved[1], torch.device("cuda", 7))
    assert placed[torch.device("cuda", 7)] == 1
    set_random_state(saved[0], CPU)
    set_random_state(random_state(CPU), two[0])
    assert len(placed) == 3


def test_a_checkpoint_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    path, io = tmp_path / "step=1.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": {"w": torch.ones(100_000)}, "game": [{"average": torch.ones(3)}]}, path)
    loaded = io.load_checkpoint(path)
    before, weights, average = path.read_bytes(), loaded["state_dict"]["w"], loaded["game"][0]["average"]
    del loaded
    assert str(path) in Path("/proc/self/maps").read_text(), "ranks of a machine share what is read"
    weights.mul_(3.0)
    assert path.read_bytes() == before
    path.unlink()
    assert float(weights.sum()) == 300_000.0
    del weights
    assert average.tolist() == [1.0] * 3
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_resumed_run_does_not_hold_its_checkpoint(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.fit("--save_every", "1", "--trainer.max_steps", "2", "--spec.optimizer.name", "adamw")
    seen: list[tuple[int, bool]] = []

    def look(self: Checkpoints, trainer: Any, *args: Any) -> None:
        held = "step=2.ckpt" in Path("/proc/self/maps").read_text()
        seen.append((len(trainer.optimizers[0].state), held))

    monkeypatch.setattr(Checkpoints, "on_train_batch_start", look)
    lab.fit("--ckpt_path", "last", "--trainer.max_steps", "3", spec=None)
    assert seen[0][0] > 0 and not seen[0][1]


@pytest.fixture
def saving(tmp_path: Path) -> Checkpoints:
    (tmp_path / "checkpoints").mkdir()
    return Checkpoints(tmp_path, 1, Stopping(), 1)


def start(saving: Checkpoints, step: int) -> None:
    trainer: Any = SimpleNamespace(global_step=step, is_global_zero=True)
    saving.on_train_start(trainer, trainer)


@pytest.mark.parametrize("pieces", [False, True])
def test_newer_checkpoints_are_set_aside_as_often_as_one_likes(
    tmp_path: Path, saving: Checkpoints, pieces: bool
) -> None:
    folder = tmp_path / "checkpoints"
    for time in range(3):
        newer = folder / "step=5.ckpt"
        if pieces:
            newer.mkdir()
            newer = newer / "state.pt"
        newer.write_text(str(time))
        start(saving, 4)
    names = ["left-2-step=5.ckpt", "left-3-step=5.ckpt", "left-step=5.ckpt"]
    found = sorted(folder.iterdir())
    assert [path.name for path in found] == names
    assert [(path / "state.pt" if pieces else path).read_text() for path in found] == ["1", "2", "0"]
    assert checkpoints_in(tmp_path) == {}


def test_a_checkpoint_that_cannot_be_removed_ends_no_run(
    tmp_path: Path, saving: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    said: list[str] = []
    monkeypatch.setattr("nashtune.training.saving.note", said.append)
    for step in (1, 2):
        (folder / f"step={step}.ckpt").mkdir()
        (folder / f"step={step}.ckpt" / "state.pt").touch()
    with monkeypatch.context() as busy:
        busy.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(OSError(16, "Device or resource busy")))
        for _ in range(2):
            saving._remove(path for step, path in checkpoints_in(tmp_path).items() if step < 2)
    assert sorted(path.name for path in folder.iterdir()) == [".step=1.ckpt.removed", "step=2.ckpt"]
    assert len(said) == 1 and "could not be removed (Device or resource busy)" in said[0]
    start(saving, 2)
    assert [path.name for path in folder.iterdir()] == ["step=2.ckpt"] and len(said) == 1


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in (2, 10, 9):
        (tmp_path / "checkpoints" / f"step={step}.ckpt").touch()
    assert newest_checkpoint(tmp_path).name == "step=10.ckpt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no file"),
        (lambda p: p.write_bytes(b"not a checkpoint"), "is no whole checkpoint: it does not begin as one, and was not"),
        (lambda p: p.touch(), "is no whole checkpoint: it is empty"),
        (
            lambda p: p.write_bytes(pickle.dumps({"state_dict": {}})),
            "does not begin as one, and was not read: it could",
        ),
        (os.mkfifo, "is neither a file nor a folder of pieces"),
        (lambda p: torch.save({"state_dict": {}}, p), "was not written by nashtune"),
        (
            lambda p: torch.save({"x": Lab}, p),
            r"holds more than .* could run any code \(GLOBAL lab\.Lab\)\. nashtune [^()]*anew$",
        ),
        (
            lambda p: torch.save({"state_dict": {"w": torch.tensor([1.0, math.nan])}}, p),
            "w is not finite, and nashtune",
        ),
    ],
    ids=["missing", "garbage", "empty", "a plain pickle", "a pipe", "foreign", "code inside", "not a number"],
)
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "x.ckpt"
    make(path)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_bit_that_has_changed_is_noticed(lab: Lab, refused: Callable[..., str], where: float) -> None:
    """In the tensors, where torch itself takes any bit, and in what names them."""
    run = lab.fit("--save_every", "1", "--keep_checkpoints", "2", "--trainer.max_steps", "2")
    newest = newest_checkpoint(run)
    content = bytearray(newest.read_bytes())
    with zipfile.ZipFile(newest) as archive:
        names = sorted((one for one in archive.infolist() if one.file_size > 100), key=lambda one: one.header_offset)
        one = names[int(where * len(names))]
        place = content.index(archive.read(one)) + one.file_size // 2
    content[place] ^= 0x10
    newest.write_bytes(content)
    for command in (("fit", "--ckpt_path", "last", "--run_dir", str(run)), ("export", str(run), "--out", "out")):
        message = refused(*command)
        assert "step=2.ckpt is torn or was altered: data" in message and "(CRC-32)" in message, message
        assert "step=1.ckpt is whole, go on from it" in message
    older = run / "checkpoints" / "step=1.ckpt"
    older.write_bytes(content)  # it is not whole either
    assert "is whole, go on from it" not in refused("export", str(run), "--out", "out")


def test_weights_alone_are_not_trained_on(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.fit("--trainer.max_steps", "2")
    content = torch.load(newest_checkpoint(run), weights_only=True)
    del content["optimizer_states"]
    torch.save(content, newest_checkpoint(run))
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run))
    assert "step=2.ckpt has no optimizer_states, so training cannot go on with it. Start a new run" in message
    assert main(["validate", "--ckpt_path", str(newest_checkpoint(run)), "--config", str(lab.run_file)]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"not a checkpoint"), "is no whole checkpoint"),
        (lambda p: torch.save({"x": Lab}, p), "holds more than tensors and plain data"),
    ],
    ids=["garbage", "code inside"],
)
def test_the_trainer_says_it_as_the_command_does(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "x.ckpt"
    make(path)
    with pytest.raises(InputError, match=message):
        AtomicCheckpointIO().load_checkpoint(path)


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("nashtune.training.checkpoint.note", said.append)
    note_other_version(tmp_path / "step=1.ckpt", __version__)
    note_other_version(tmp_path / "step=1.ckpt", "9.9")
    (line,) = said
    assert "was written by nashtune 9.9" in line

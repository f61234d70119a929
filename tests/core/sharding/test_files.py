"""A folder of pieces is whole, or it is refused: when it is written and when it is read."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from nashtune.errors import InputError
from nashtune.sharding import files
from nashtune.sharding.listing import FILES, STATE
from nashtune.sharding.replica import room_for
from nashtune.training.samples import Samples, SampleSettings
from ranks import call_on_ranks

RANKS = 3


def save_in_three(rank: int) -> None:
    """Into one folder, into one that is seen late, and into three."""
    mesh = init_device_mesh("cpu", (RANKS,))
    weight = DTensor.from_local(torch.full((2, 3), float(rank + 1)), mesh, [Shard(0)])
    content = {"state_dict": {"w": weight, "b": torch.ones(2)}, "optimizer_states": [], "global_step": 1}
    files.save_sharded(Path("shared/step=1.ckpt"), content)

    see, began = files._pieces_in, time.monotonic()

    def late(folder: Path, pattern: str) -> dict[str, int]:
        found = see(folder, pattern)
        if pattern == "*" and time.monotonic() < began + 2:
            found.popitem()
        return found

    files._pieces_in = late
    files.save_sharded(Path("late/step=1.ckpt"), content)
    files._pieces_in, files.WAIT = see, 0.3

    os.makedirs(f"host{rank}")
    os.chdir(f"host{rank}")
    with pytest.raises(InputError, match="rank 0 does not see what another rank has written"):
        files.save_sharded(Path("checkpoints/step=2.ckpt"), content)
    assert not list(Path("checkpoints").iterdir())


def refuse_altered(whole: Path, folder: Path) -> None:
    """One byte of one piece, one byte less of it, another file, and another version's folder: each is named."""
    (piece,) = whole.glob("shard-00002-*")
    written = piece.read_bytes()
    size = len(written)
    for number, (content, said) in enumerate(
        (
            (
                written[:-1] + bytes([written[-1] ^ 1]),
                f"{piece.name} is torn or was altered: its sha256 is not that in",
            ),
            (written[:-1], f"{piece.name} is not what was written: it has {size - 1} of {size} bytes"),
        )
    ):
        copy = folder / f"altered-{number}.ckpt"
        shutil.copytree(whole, copy)
        (copy / piece.name).write_bytes(content)
        with pytest.raises(InputError, match=said):
            files.consolidate(copy)
    state = folder / "state.ckpt"
    shutil.copytree(whole, state)
    content = (state / STATE).read_bytes()
    (state / STATE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"state\.pt is torn or was altered"):
        files.consolidate(state, weights=False, optimizer=False)
    foreign = folder / "foreign.ckpt"
    shutil.copytree(whole, foreign)
    (foreign / "more.safetensors").touch()
    with pytest.raises(InputError, match=r"more\.safetensors is not what was written: it belongs to something else"):
        files.consolidate(foreign)
    (foreign / "more.safetensors").unlink()
    listed = json.loads((foreign / FILES).read_text())
    (foreign / FILES).write_text(json.dumps({**listed, "form": 3, "nashtune": "9.9"}))
    with pytest.raises(InputError, match=r"has another form than this version .* it was written by 9\.9"):
        files.consolidate(foreign)
    (foreign / FILES).unlink()
    with pytest.raises(InputError, match=r"is no whole checkpoint: files\.json is missing"):
        files.consolidate(foreign)


def test_pieces_that_are_missing_are_noticed(tmp_path: Path) -> None:
    call_on_ranks(save_in_three, tmp_path, ranks=RANKS)
    expected = torch.arange(1.0, 4.0).repeat_interleave(2)[:, None].expand(6, 3)
    for folder in (tmp_path / "shared" / "step=1.ckpt", tmp_path / "late" / "step=1.ckpt"):
        whole = files.consolidate(folder)
        assert torch.equal(whole["state_dict"]["w"], expected) and whole["global_step"] == 1
        assert torch.equal(whole["state_dict"]["b"], torch.ones(2))

    for gone in range(1, RANKS + 1):
        copy = tmp_path / f"without-{gone}.ckpt"
        shutil.copytree(tmp_path / "shared" / "step=1.ckpt", copy)
        (piece,) = copy.glob(f"shard-{gone:05}-*")
        piece.unlink()
        with pytest.raises(InputError, match=f"{piece.name} is missing"):
            files.consolidate(copy)
        listed = json.loads((copy / FILES).read_text())
        del listed["files"][piece.name]  # as where a folder was not shared, and nobody knew of the piece
        (copy / FILES).write_text(json.dumps(listed))
        with pytest.raises(InputError, match=r"pieces of weights\.[bw] are missing"):
            files.consolidate(copy)

    refuse_altered(tmp_path / "shared" / "step=1.ckpt", tmp_path)

    listed = json.loads((tmp_path / "shared" / "step=1.ckpt" / FILES).read_text())
    listed["tensors"]["weights.w"][1] = "torch.bfloat16"
    (tmp_path / "shared" / "step=1.ckpt" / FILES).write_text(json.dumps(listed))
    with pytest.raises(InputError, match=r"pieces of weights\.w are missing or not what was written"):
        files.consolidate(tmp_path / "shared" / "step=1.ckpt")


def test_room_for_a_copy_leaves_room_for_what_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    model, device = torch.nn.Linear(10, 10, bias=False), torch.device("cuda", 0)
    assert room_for(model, device, or_cpu=False, later=500) == device
    assert room_for(model, device, or_cpu=True, later=600) == torch.device("cpu")
    with pytest.raises(InputError, match="beside the optimiser's state that is to come"):
        room_for(model, device, or_cpu=False, later=600)


def test_a_finished_run_without_room_for_a_copy_has_no_answers_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*args: Any, **options: Any) -> Any:
        raise InputError("a whole copy takes 3 GiB")

    said: list[str] = []
    monkeypatch.setattr("nashtune.training.samples.note", said.append)
    samples = Samples(tmp_path, SampleSettings(), 0)
    samples.answers = [{"prompt": "p", "before": "b"}]
    module: Any = SimpleNamespace(policy=SimpleNamespace(inference_model=no_room))
    monkeypatch.setattr(samples, "_prompts", lambda module: [("p", [1])])
    trainer: Any = SimpleNamespace(is_global_zero=True)
    samples.on_train_end(trainer, module)
    assert said == ["no answers of the trained weights: a whole copy takes 3 GiB"]
    assert samples.answers == [{"prompt": "p", "before": "b"}] and samples.kl is None

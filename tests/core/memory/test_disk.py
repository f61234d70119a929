"""Predicted bytes against those of real run folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lab import Lab
from nashtune.cli.main import main
from nashtune.interfaces.schedule import Collect, Round, Snapshot, Update
from nashtune.memory.disk import Disk, critic_parameters, disk_of, free_space
from nashtune.memory.shape import read_shape
from nashtune.models.config import LoraSettings
from nashtune.models.locate import ModelFolder, locate
from nashtune.spec.model import HeadSpec
from nashtune.training.checkpoint import AtomicCheckpointIO, checkpoints_in

GIVEN: dict[str, Any] = {"precision": "fp32", "lora": None, "optimizer": "adamw"}
MIXED = ("--spec.optimizer.name", "adamw", "--policy.precision", "bf16", "--spec.optimizer.rounding", "stochastic")


def size_of(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


@pytest.fixture
def predicted(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What `check` says of the run that `lab.fit` would make with the same options."""

    def check(spec: str, *options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["check", spec, "--json", "--config", str(lab.run_file), *options]) == 0
        (result,) = json.loads(capsys.readouterr().out)
        return dict(result["disk"])

    return check


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("dpo", ("--spec.optimizer.name", "adamw")),
        ("dpo", ("--spec.optimizer.name", "rmsprop")),
        ("dpo", ("--spec.optimizer.name", "adamw", "--policy.lora.r", "16")),
        ("dpo", ("--policy.lora", "{r: 16, target_modules: [q_proj, v_proj]}")),
        ("simpo", MIXED),
        ("reward_bt", ("--spec.optimizer.name", "adamw")),
        ("reward_bt", ("--spec.head.trunk", "frozen")),
    ],
)
def test_a_checkpoint_and_what_the_end_adds(
    lab: Lab, predicted: Callable[..., dict[str, Any]], spec: str, options: tuple[str, ...]
) -> None:
    options = (*options, "--trainer.max_steps", "3", "--save_every", "1", "--keep_checkpoints", "2")
    disk = predicted(spec, *options)
    run = lab.fit(*options, spec=spec)
    files = [size_of(path) for path in checkpoints_in(run).values()]
    assert len(files) == disk["kept"] == 2
    assert disk["checkpoint"] == pytest.approx(files[-1], rel=0.03, abs=4_000)
    assert disk["while_saving"] == 3 * disk["checkpoint"]
    assert disk["export"] == pytest.approx(size_of(run / "export"), abs=10_000)  # its card, its configuration
    assert disk["peak"] == max(disk["while_saving"], 2 * disk["checkpoint"] + disk["export"])


@pytest.mark.parametrize("lora", [False, True])
def test_a_game_keeps_its_rounds(lab: Lab, predicted: Callable[..., dict[str, Any]], lora: bool) -> None:
    lab.become_game()
    options = ("--spec.schedule.rounds", "2", *(("--policy.lora.r", "16") if lora else ()))
    disk = predicted("onpo", *options)
    run = lab.fit(*options, spec="onpo")
    (checkpoint,) = checkpoints_in(run).values()
    assert disk["checkpoint"] == pytest.approx(size_of(checkpoint), rel=0.04)
    assert disk["snapshots"] == pytest.approx(size_of(run / "snapshots"), rel=0.1)  # with a header each, and their list
    assert disk["peak"] > size_of(run)


def test_an_average_of_weights_travels_in_the_checkpoint(lab: Lab, predicted: Callable[..., dict[str, Any]]) -> None:
    lab.become_game(prompts_per_round=1)
    options = ("--spec.schedule.steps", "3", "--spec.optimizer.name", "adamw")
    disk = predicted("nash_ema_pg", *options)
    run = lab.fit(*options, spec="nash_ema_pg")
    (checkpoint,) = checkpoints_in(run).values()
    assert disk["checkpoint"] == pytest.approx(size_of(checkpoint), rel=0.04)
    assert disk["checkpoint"] > 1.2 * predicted("onpo", "--spec.optimizer.name", "adamw")["checkpoint"]


def test_moments_of_eight_bits(tiny: Path, tmp_path: Path, load: Callable[..., Any]) -> None:
    """The states as bitsandbytes keeps them: two bytes a weight, scales by blocks of 256, and one table for all."""
    weights = load(tiny).trainable_state_dict()
    table, state = torch.zeros(256), {}
    for number, weight in enumerate(weights.values()):
        blocks = torch.zeros(-(-weight.numel() // 256))
        bits = {name: torch.zeros(weight.shape, dtype=torch.uint8) for name in ("state1", "state2")}
        state[number] = {
            "step": 5,
            **bits,
            "qmap1": table,
            "qmap2": table,
            "absmax1": blocks,
            "absmax2": blocks.clone(),
        }
    path = tmp_path / "step=1.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": weights, "optimizer_states": [{"state": state}]}, path)
    folder = locate(str(tiny))
    disk = disk_of(folder, **{**GIVEN, "optimizer": "adamw_8bit"})
    assert disk is not None
    assert disk.checkpoint == pytest.approx(size_of(path) + 18_000, rel=0.05)


def made(tmp_path: Path, tensors: dict[str, list[int]], **config: Any) -> ModelFolder:
    """A folder with the header of a weight file alone, and a configuration."""
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "vocab_size": 10, **config}))
    header = json.dumps({name: {"shape": shape} for name, shape in tensors.items()}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(1000))
    return ModelFolder(path=tmp_path, base=tmp_path, tokenizer=tmp_path)


LAYER = {"q": [8, 8], "k": [8, 8], "v": [8, 8], "o": [8, 8], "gate": [16, 8], "up": [16, 8], "down": [8, 16]}


def test_the_least_is_of_the_decoder_alone(tmp_path: Path) -> None:
    """What a folder holds besides it may not be loaded, so no run is refused for it."""
    folder = made(tmp_path, {"embed": [10, 8], **LAYER, "vision": [1000, 1000]})
    disk = disk_of(folder, **GIVEN)
    assert disk is not None
    assert disk.least == 12 * (80 + 4 * 64 + 3 * 128)
    assert disk.checkpoint > 12_000_000


def test_a_head_that_shares_the_embedding_is_saved_once(tmp_path: Path) -> None:
    tensors = {"embed": [10, 8], **LAYER, "lm_head.weight": [10, 8]}
    apart, shared = (
        disk_of(made(tmp_path, tensors), **GIVEN),
        disk_of(made(tmp_path, tensors, tie_word_embeddings=True), **GIVEN),
    )
    assert apart is not None and shared is not None
    assert apart.checkpoint - shared.checkpoint == 12 * 80 + 4 * 300


def test_nothing_is_certain_of_adapters_on_experts(tmp_path: Path) -> None:
    lora = {**GIVEN, "lora": LoraSettings(r=2)}
    dense = disk_of(made(tmp_path, {"embed": [10, 8], **LAYER}), **lora)
    experts = disk_of(made(tmp_path, {"embed": [10, 8], **LAYER}, num_experts=4), **lora)
    assert dense is not None and dense.least == 12 * 2 * (4 * 16 + 3 * 24)
    assert experts is not None and experts.least == experts.first == 0


def test_a_model_of_another_format_is_not_predicted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert disk_of(ModelFolder(path=tmp_path, base=tmp_path, tokenizer=tmp_path), **GIVEN) is None


def test_an_adapter_that_is_merged_in_memory_is_exported_whole(sft_adapter: Path, tiny: Path) -> None:
    further = disk_of(locate(str(sft_adapter)), **GIVEN)
    fresh = disk_of(locate(str(sft_adapter)), **{**GIVEN, "lora": LoraSettings(r=2)})
    assert further is not None and fresh is not None
    assert further.checkpoint == pytest.approx(fresh.checkpoint, rel=0.01)
    assert fresh.export > size_of(tiny / "model.safetensors") * 0.9 > further.export


def test_a_critic_is_trained_and_saved_with_the_policy(tiny: Path, heads: Path) -> None:
    folder = locate(str(tiny))
    assert critic_parameters("zero", folder, None) == 33
    shape = read_shape(folder)
    assert shape is not None
    copy = critic_parameters("reward_model", folder, str(heads))
    assert copy == shape.parameters + 3 * 32
    disk, more = disk_of(folder, **GIVEN), disk_of(folder, **GIVEN, critic=copy)
    assert disk is not None and more is not None
    assert more.checkpoint - disk.checkpoint == pytest.approx(12 * copy, rel=0.01)


def test_how_many_lie_there_at_once() -> None:
    given: dict[str, Any] = {"checkpoint": 100, "least": 90, "snapshot": 0, "snapshots": 0, "export": 30}
    assert Disk(**given, keep=1, saves=None).peak == 200  # the old one goes when the new one is whole
    assert Disk(**given, keep=3, saves=None).while_saving == 400
    once = Disk(**given, keep=1, saves=1)
    assert (once.while_saving, once.at_the_end, once.peak, once.first) == (100, 130, 130, 90)
    assert Disk(**{**given, "export": 500}, keep=1, saves=None).peak == 600
    served = Disk(**given, keep=1, saves=None, pushed=150)
    assert (served.while_saving, served.while_pushing, served.peak) == (350, 400, 400)
    game = Disk(**{**given, "snapshot": 40, "snapshots": 5}, keep=1, saves=None)
    assert (game.while_saving, game.first) == (400, 90 + 36)


def test_rounds_without_averages_count_their_snapshots(tiny: Path) -> None:
    rounds = [Round(phases=(Collect(policy=None), Update(), Snapshot(name=f"main@{t}"))) for t in (1, 2)]
    disk = disk_of(locate(str(tiny)), **GIVEN, rounds=rounds)
    assert disk is not None and disk.snapshots == 3


def test_a_frozen_trunk_leaves_a_head(tiny: Path) -> None:
    disk = disk_of(locate(str(tiny)), **GIVEN, head=HeadSpec(members=3, trunk="frozen"))
    assert disk is not None
    assert (disk.least, disk.checkpoint) == (0, 12 * 3 * 32 + 4 * 300 + 18_000)


def test_free_space_is_that_of_the_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=7))
    assert free_space(tmp_path / "not" / "there") == 7
    assert asked == [tmp_path]

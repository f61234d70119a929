"""What a command asks of a Ray cluster, and what Ray is not asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nashtune.errors import InputError
from nashtune.onray.layout import Layout, layout_of, listed, refuse_inside, waited_for

DDP = "lightning.pytorch.strategies.DDPStrategy"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("devices 2 strategy ddp", Layout(1, 2, "auto")),
        ("devices 8 num_nodes 4 strategy ddp accelerator gpu", Layout(4, 8, "gpu")),
        (f"devices 2 strategy {DDP} strategy.timeout 0:10:00 accelerator cpu", Layout(1, 2, "cpu")),
        ("devices 2 strategy auto", Layout(1, 2, "auto")),
        ("devices 1 strategy auto num_nodes 1", Layout(1, 1, "auto")),
    ],
)
def test_machines_and_processes_are_the_trainers(options: str, expected: Layout) -> None:
    words = options.split()
    argv = [word for name, value in zip(words[::2], words[1::2], strict=True) for word in (f"--trainer.{name}", value)]
    assert layout_of(["--spec", "dpo", "--run_dir", "x", *argv]) == expected


def test_run_files_say_it_too_and_options_win(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("trainer: {devices: 4, num_nodes: 2, strategy: {class_path: " + DDP + "}}")
    assert layout_of(["--config", "run.yaml"]) == Layout(2, 4, "auto")
    assert layout_of(["--config", "run.yaml", "--trainer.devices=3"]) == Layout(2, 3, "auto")


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ("strategy: ddp", "trainer.devices: Ray must be told how many processes each machine runs: --trainer.devices"),
        ("strategy: ddp, devices: auto", "trainer.devices: auto: Ray must be told"),
        ("strategy: ddp, devices: -1", "trainer.devices: -1: Ray must be told"),
        ("strategy: ddp, devices: [0, 2]", "which GPUs they are is for Ray to say"),
        ("strategy: ddp, devices: '0,2'", "trainer.devices: 0,2: which GPUs they are is for Ray to say"),
        ("devices: 2", "trainer.strategy: Ray starts runs of ddp alone, and a checkpoint may name another; say --trai"),
        ("devices: 2, strategy: fsdp2", "trainer.strategy: fsdp2: Ray starts runs of ddp alone; start this one by tor"),
        ("devices: 2, strategy: fsdp2_sharded", "fsdp2_sharded: Ray starts runs of ddp alone"),
        ("devices: 2, strategy: deepspeed_stage_2", "deepspeed_stage_2: Ray starts"),
        ("devices: 2, strategy: {class_path: nashtune.sharding.strategy.FSDP2Strategy}", "FSDP2Strategy: Ray starts"),
        ("devices: 2, strategy: {class_path: mine.Strategy}", "mine.Strategy: Ray starts"),
        ("devices: 2, strategy: ddp, accelerator: mps", "trainer.accelerator: mps: Ray gives out CPUs and GPUs"),
    ],
)
def test_what_ray_is_not_asked_for_is_refused_with_its_place(trainer: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"trainer: {{{trainer}}}")
    with pytest.raises(InputError) as error:
        layout_of(["--config", "run.yaml"])
    assert said in str(error.value) and "run.yaml:1: " in str(error.value)


@pytest.mark.parametrize(
    ("accelerator", "cluster_has_gpus", "gpus"),
    [("auto", True, 3.0), ("auto", False, None), ("cpu", True, None), ("gpu", False, 3.0), ("cuda", True, 3.0)],
)
def test_a_machine_gives_a_cpu_and_perhaps_a_gpu_for_each_process(
    accelerator: str, cluster_has_gpus: bool, gpus: float | None
) -> None:
    asked = Layout(2, 3, accelerator).resources(cluster_has_gpus=cluster_has_gpus)
    assert asked["CPU"] == 3.0 and asked.get("GPU") == gpus


def test_a_process_of_torchrun_starts_no_others() -> None:
    refuse_inside({"RANK": "0"})
    with pytest.raises(InputError, match="this one was started with others by torchrun"):
        refuse_inside({"RANK": "0", "WORLD_SIZE": "2"})


def test_what_is_waited_for_and_what_there_is() -> None:
    nodes = [{"CPU": 64.0, "GPU": 8.0, "memory": 1e9}, {"CPU": 4.0}]
    each = {"CPU": 8.0, "GPU": 1.0}
    assert waited_for(2, each) == "2 machines with 8 CPUs and 1 GPU each"
    assert waited_for(1, {"CPU": 1.0}) == "1 machine with 1 CPU"
    assert listed(nodes, each) == "64 CPUs and 8 GPUs; 4 CPUs and 0 GPUs"
    assert listed([], each) == "no machine"

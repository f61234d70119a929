"""Whole runs on one GPU: mixed precision, weights cut up by FSDP2, compiled layers, and the shape of a 1.5B model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.logprobs import EngineName, get_engine
from nashtune.testing import tiny_model, token_batch
from packed_models import make
from ranks import fit_on_ranks

GPU = ("--trainer.accelerator", "gpu", "--trainer.devices", "1", "--spec.optimizer.warmup", "0")
FSDP2 = ("--trainer.strategy", "fsdp2")
BF16 = ("--trainer.precision", "bf16-mixed")


def fit(lab: Lab, run: str, *options: str, strategy: tuple[str, ...] = ()) -> Path:
    """In a process of its own: a process group and a CUDA context stay for as long as their process does."""
    command = ["fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", run, *options, *GPU]
    fit_on_ranks(command, lab.folder, ranks=1, strategy=strategy)
    return lab.folder / run


def losses(lab: Lab, run: Path) -> list[float]:
    return [loss for _, loss in lab.metrics(run).series["train/loss"]]


@pytest.mark.parametrize("lora", [(), ("--policy.lora.r", "4")], ids=["weights", "lora"])
def test_fsdp2_on_one_device_is_one_device(lab: Lab, lora: tuple[str, ...]) -> None:
    options = ("--spec.optimizer.lr", "1e-4", "--trainer.gradient_clip_val", "1.0", *lora)
    plain = fit(lab, "plain", *options)
    cut = fit(lab, "cut", *options, strategy=FSDP2)
    assert losses(lab, cut) == pytest.approx(losses(lab, plain), rel=1e-4)


@pytest.mark.parametrize("strategy", [(), FSDP2], ids=["one device", "fsdp2"])
def test_bf16_is_near_float32(lab: Lab, strategy: tuple[str, ...]) -> None:
    options = ("--spec.optimizer.lr", "1e-4")
    full = losses(lab, fit(lab, "full", *options))
    mixed = losses(lab, fit(lab, "mixed", *options, *BF16, strategy=strategy))
    assert mixed == pytest.approx(full, abs=0.02)
    assert mixed[-1] < mixed[0]


def test_a_game_round(lab: Lab) -> None:
    rows = [json.loads(line) for line in (lab.folder / "train.jsonl").read_text().splitlines()]
    (lab.folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    options = ("--spec", "online_dpo", "--spec.schedule.rounds", "1", "--data.train", "prompts.jsonl")
    oracle = ("--spec.oracle", "rules", "--spec.oracle.rules", "[distinct_1]", "--spec.sampler.max_new_tokens", "8")
    command = ["fit", "--config", str(lab.run_file), "--run_dir", "run", *options, *oracle, *BF16, *GPU]
    fit_on_ranks([*command, "--data.validation", "prompts.jsonl"], lab.folder, ranks=1, strategy=FSDP2)
    assert (lab.folder / "run" / "export" / "model.safetensors").exists()
    assert losses(lab, lab.folder / "run")


@pytest.mark.parametrize("name", ["tiled", "shared"])
def test_compiled_layers_give_the_same_gradients(name: EngineName) -> None:
    engine = get_engine(name)
    batch = token_batch([(60, 40), (60, 90)])
    batch = replace(batch, layout=engine.plan(batch)).to("cuda")
    found = []
    for compiled in (False, True):
        model = make("llama", hidden_size=128, head_dim=32, max_position_embeddings=512).float().cuda()
        engine.attach(model)
        for layer in model.model.layers if compiled else []:
            layer.compile()
        sums = engine.logprobs(engine.forward(model, batch), batch).sums
        (sums[0] - 2 * sums[1]).backward()
        found.append((sums.detach(), {key: p.grad for key, p in model.named_parameters()}))
    (true, true_grads), (sums, grads) = found
    torch.testing.assert_close(sums, true, rtol=1e-3, atol=2e-2)
    for key, grad in true_grads.items():
        assert float((grads[key] - grad).norm()) <= 2e-2 * float(grad.norm()) + 1e-4, key


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the shape of Qwen2.5-1.5B, in bfloat16, with the tokenizer of the tiny model."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tiny_model(tmp_path_factory.mktemp("models") / "big")
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


@pytest.mark.parametrize("strategy", [(), FSDP2], ids=["one device", "fsdp2"])
@pytest.mark.parametrize(
    "trained", [("--policy.precision", "bf16", "--policy.lora.r", "16"), BF16], ids=["adapter", "weights"]
)
def test_the_shape_of_a_1_5b_model_trains(
    lab: Lab, big: Path, trained: tuple[str, ...], strategy: tuple[str, ...]
) -> None:
    """Prints what docs/results is to say of it: run with -s."""
    rate = "1e-3" if "--policy.lora.r" in trained else "1e-6"
    options = ("--policy.path", str(big), "--policy.gradient_checkpointing", "true", "--spec.optimizer.lr", rate)
    run = fit(lab, "run", *options, *trained, "--spec.references.ref", "cached", strategy=strategy)
    found = losses(lab, run)
    assert found[-1] < found[0]
    speed = json.loads((run / "report.json").read_text())["throughput"]
    print(
        f"\n1.5B, {' '.join((*trained, *strategy))}: {speed}, torch {torch.__version__}, {torch.cuda.get_device_name()}"
    )

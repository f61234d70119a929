"""Reward models that plain transformers and peft wrote, and their scores as plain transformers and peft give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def make_reward(tiny, tmp_path_factory) -> Callable[..., Path]:
    """Make a tiny reward model with so many outputs, random by its seed; its pad token is its EOS."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    def make(labels: int = 1, seed: int = 7, folder: Path | None = None) -> Path:
        folder = folder or tmp_path_factory.mktemp("reward")
        config = LlamaConfig.from_pretrained(tiny)
        config.num_labels = labels
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForSequenceClassification(config)
            for weight in model.parameters():
                torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory) -> Callable[..., Path]:
    """Make a LoRA adapter with its own score head on a base model, random by its seed."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    def make(base: Path, labels: int = 1, seed: int = 1, head: bool = True) -> Path:
        folder = tmp_path_factory.mktemp("adapter")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_pretrained(
                base, num_labels=labels, ignore_mismatched_sizes=True
            )
            config = LoraConfig(
                r=2,
                target_modules=["q_proj", "down_proj"],
                task_type="SEQ_CLS" if head else None,
                modules_to_save=["score"] if head else None,
            )
            adapted = get_peft_model(model, config)
            for name, weight in adapted.named_parameters():
                if weight.requires_grad and "original_module" not in name:
                    torch.nn.init.normal_(weight, std=0.3)
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
        return folder

    return make


@pytest.fixture(scope="session")
def alone() -> Callable[..., torch.Tensor]:
    """Score conversations with one folder in plain transformers, one text at a time and unpadded: (N, outputs)."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    def score(folder: Path, tokenizer: Path, prompts, completions, labels: int = 1) -> torch.Tensor:
        if (folder / "adapter_config.json").is_file():
            model = AutoPeftModelForSequenceClassification.from_pretrained(
                folder, num_labels=labels, ignore_mismatched_sizes=True
            )
        else:
            model = AutoModelForSequenceClassification.from_pretrained(folder)
        model.config.pad_token_id = None  # an unpadded text is read at its last token, EOS though it is
        words = AutoTokenizer.from_pretrained(tokenizer)
        rows = []
        for prompt, completion in zip(prompts, completions, strict=True):
            turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            ids = words.apply_chat_template([*turns, {"role": "assistant", "content": completion}], return_dict=False)
            with torch.no_grad():
                rows.append(model.eval()(input_ids=torch.tensor([ids])).logits[0].double())
        return torch.stack(rows)

    return score


@pytest.fixture(scope="session")
def three(make_reward) -> list[Path]:
    return [make_reward(seed=seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="session")
def heads(make_reward) -> Path:
    return make_reward(4, seed=5)


@pytest.fixture(scope="session")
def adapters(tiny, make_adapter) -> list[Path]:
    return [make_adapter(tiny, seed=seed) for seed in (1, 2, 3)]

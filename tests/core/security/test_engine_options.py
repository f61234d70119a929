"""What a spec may have an engine in this process do."""

from __future__ import annotations

import pytest

from nashtune.samplers.vllm_options import check_engine_options


@pytest.mark.parametrize(
    "options",
    [
        {"trust_remote_code": True},
        {"worker_cls": "evil.Worker"},
        {"worker_extension_cls": "evil.Extension"},
        {"logits_processors": ["evil:Processor"]},
        {"distributed_executor_backend": "evil.Executor"},
        {"tokenizer": "someone/else"},
        {"speculative_config": {"model": "someone/else"}},
        {"hf_overrides": {"architectures": ["Evil"]}},
        {"attention_backend": "evil.module.Backend"},
    ],
)
def test_nothing_that_could_name_code_or_files(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"engine_options\."):
        check_engine_options(options)


def test_numbers_switches_and_known_words() -> None:
    check_engine_options({"gpu_memory_utilization": 0.4, "max_model_len": 2048, "enforce_eager": True})
    check_engine_options({"kv_cache_dtype": "fp8_e5m2", "attention_backend": "FLASH_ATTN", "quantization": "fp8"})

"""Drawing completions, apart from training: Hugging Face `generate` against the sampler `policy`. One process.

Both draw as many completions of the same prompts, at temperature 1 from all tokens, with the same weights in float32,
and take turns. Tokens that were drawn are counted; `generate` runs every row to the longest one.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--prompts", type=int, required=True)
    parser.add_argument("--completions", type=int, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--turns", type=int, required=True)
    args = parser.parse_args()
    import torch
    from transformers import GenerationConfig

    from nashtune.interfaces import Surroundings
    from nashtune.models.config import PolicyConfig
    from nashtune.models.policy import HFPolicy
    from nashtune.samplers.policy import PolicySampler

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    policy = HFPolicy(PolicyConfig(path=args.model))
    policy.load()
    if torch.cuda.is_available():
        policy.to("cuda")
    tokenizer = policy.tokenizer()
    tokenizer.padding_side = "left"
    texts = [json.loads(line)["prompt"] for line in args.pairs.open()][: args.prompts]
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    sampler = PolicySampler(completions=args.completions, max_new_tokens=args.new_tokens)
    sampler.attach(Surroundings(policy=policy, tokenizer=tokenizer))
    sampler.sync("start")
    model = policy.loaded()

    def by_sampler(seed: int) -> int:
        drawn = sampler.sample(prompts, args.completions, seed=seed)
        return sum(len(one.token_ids) for one in drawn)

    def by_generate(seed: int) -> int:
        torch.manual_seed(seed)
        repeated = [prompt for prompt in prompts for _ in range(args.completions)]
        padded = tokenizer.pad({"input_ids": repeated}, return_tensors="pt").to(model.device)
        settings = GenerationConfig(
            do_sample=True,
            max_new_tokens=args.new_tokens,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model.eval()
        with torch.no_grad():
            out = model.generate(**padded, generation_config=settings)[:, padded["input_ids"].shape[1] :]
        ended = (out == tokenizer.eos_token_id).int()
        return int((ended.cumsum(1) - ended == 0).sum())

    draws = {"generate": by_generate, "sampler": by_sampler}
    results: dict[str, list[float]] = {name: [] for name in draws}
    for turn in range(args.turns):
        for name in list(draws)[:: 1 if turn % 2 == 0 else -1]:
            began = time.perf_counter()
            tokens = draws[name](turn)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            results[name].append(tokens / (time.perf_counter() - began))
    print(json.dumps({"tokens_per_second": results, "rows": len(prompts) * args.completions}))


if __name__ == "__main__":
    main()

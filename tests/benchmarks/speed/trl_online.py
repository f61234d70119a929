"""A plain TRL script: one pass of the experimental OnlineDPOTrainer over prompts. One measured process.

Two completions of each prompt are drawn, a rule judges, and each batch is one optimiser step. Gradient checkpointing is
off: with it, which is the default, this trainer generates without a cache.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

RULES = {"a": 1.0, "b": 0.013, "c": 0.00017}
"""Pattern -> weight of its number of matches: a judge whose ties are rare. `nashtune_run.py` has the same."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--clip", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    from speed.probe import Probe

    probe = Probe()
    drawn, trained = [], []
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")

    class Steps(TrainerCallback):
        def on_train_begin(self, *_, **__):
            probe.mark("train_start")

        def on_step_begin(self, *_, **__):
            probe.begin_step()

        def on_step_end(self, *_, **__):
            probe.end_step()

    def judge(prompts, completions, completion_ids, **_):
        drawn.extend(len(ids) for ids in completion_ids)
        trained.extend(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
        return [sum(weight * text.count(letter) for letter, weight in RULES.items()) for text in completions]

    config = OnlineDPOConfig(
        output_dir=args.out,
        per_device_train_batch_size=args.batch,
        num_train_epochs=1,
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        max_grad_norm=args.clip,
        beta=args.beta,
        max_new_tokens=args.new_tokens,
        max_length=args.max_length,
        temperature=1.0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
    )
    trainer = OnlineDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        reward_funcs=judge,
        args=config,
        train_dataset=Dataset.from_list([json.loads(line) for line in args.prompts.open()]),
        processing_class=tokenizer,
        callbacks=[Steps()],
    )
    trainer.train()
    probe.note(drawn=sum(drawn), completions=len(drawn), trained=sum(drawn) + sum(trained))
    probe.write()
    trainer.save_model()


if __name__ == "__main__":
    main()

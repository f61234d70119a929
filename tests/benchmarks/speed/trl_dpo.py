"""A plain TRL script: DPOTrainer on the pairs of a file, in the order of a file. One measured process.

What is not TRL's default is what the comparison fixes on both sides: learning rate, schedule, clipping, precision, the
rows' order, and no report to a tracker. `--skip-masked` forces on what TRL does on a GPU only: it scores just the
positions of completion tokens and not prompt and padding. There, `add_fused_lm_head` decides by
`compact = _use_triton(device)`, and this replaces that function in the namespace of `trl.trainer.utils`, where nothing
else reads it; the kernels' own choice between Triton and torch is another reference to it and stays as it is.
`--onednn` has products in float32 computed by the library that `nashtune fit` chooses on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--order", type=Path, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--clip", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--precision", choices=("bf16", "fp32"), required=True)
    parser.add_argument("--reference", choices=("live", "cached"), required=True)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--skip-masked", action="store_true")
    parser.add_argument("--onednn", action="store_true")
    parser.add_argument("--gradients", help="file for the gradients of the first step")
    parser.add_argument("--steps", type=int, default=-1)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if args.onednn:
        from nashtune import cpu

        cpu.tune()
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from speed.probe import Probe

    if args.skip_masked:
        import trl.trainer.utils

        trl.trainer.utils._use_triton = lambda device: True

    probe = Probe()

    class Steps(TrainerCallback):
        def on_train_begin(self, *_, **__):
            probe.mark("train_start")

        def on_step_begin(self, *_, **__):
            probe.begin_step()

        def on_pre_optimizer_step(self, *_, model, **__):
            if args.gradients and not Path(args.gradients).exists():
                from safetensors.torch import save_file

                grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
                save_file(grads, args.gradients)

        def on_step_end(self, *_, **__):
            probe.end_step()

    given = [json.loads(line) for line in args.pairs.open()]
    rows = Dataset.from_list([given[i] for i in json.loads(args.order.read_text())])
    config = DPOConfig(
        output_dir=args.out,
        per_device_train_batch_size=args.batch,
        num_train_epochs=1,
        max_steps=args.steps,
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        max_grad_norm=args.clip,
        beta=args.beta,
        max_length=args.max_length,
        bf16=args.precision == "bf16",
        precompute_ref_log_probs=args.reference == "cached",
        gradient_checkpointing=not args.no_checkpointing,
        train_sampling_strategy="sequential",
        use_cpu=not torch.cuda.is_available(),  # bf16 on a CPU is refused without it
        report_to="none",
    )
    trainer = DPOTrainer(
        model=args.model,
        args=config,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(args.model),
        callbacks=[Steps()],
    )
    probe.mark("setup")
    compute = trainer.compute_loss

    def compute_loss(model, inputs, *rest, **kwargs):
        probe.tokens([inputs["attention_mask"]])
        loss = compute(model, inputs, *rest, **kwargs)
        probe.loss(loss)
        return loss

    trainer.compute_loss = compute_loss
    trainer.train()
    probe.write()
    trainer.save_model()


if __name__ == "__main__":
    main()

"""FSDP2: a model's weights, gradients and optimiser state cut over the ranks.

`placing` cuts a model up, `tensors` says what a weight is to one rank and to all of them, `replica` puts a plain copy
together for what cannot run in step (sampling, export), `strategy` is what `trainer.strategy: fsdp2` names and `files`
keeps checkpoints in pieces.
"""

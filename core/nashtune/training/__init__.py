"""The one training loop: the Lightning module, its optimiser, checkpoints, callbacks and the run folder."""

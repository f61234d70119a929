"""Reinforcement learning on completions, token by token: pure functions that policy-gradient losses are made of.

Every tensor is flat: one number for each token of S completions, one completion after another (M,), with `sequence`,
the completion that each token belongs to, and `lengths`. There is no padding and no prompt token that a mean could run
over.
"""

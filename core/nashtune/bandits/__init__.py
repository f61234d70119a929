"""Bandits with noisy rewards: what a spec makes of them, exactly, and best-of-n overoptimisation."""

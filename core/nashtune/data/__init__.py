"""Rows of preference data: where they come from, what they mean, how they become tokens, in which order they come."""

"""Pipelines: several stages in one command, each finished or not, and taken up where they were stopped."""

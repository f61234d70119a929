"""Specs as data: one YAML file per method and variant, its test vectors under `vectors/`, run files under `runs/`."""

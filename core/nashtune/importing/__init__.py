"""Configs of other tools as specs and run files: tables say what each key is here, and what has no counterpart."""

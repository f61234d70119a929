"""Runs on the machines of a Ray cluster: Ray gives the places and starts the processes, and does nothing else.

The processes are those of torchrun by their environment, so that everything that happens in them is the code of any
other run. Ray itself is imported in `cluster` alone, and only there: it is an optional extra.
"""

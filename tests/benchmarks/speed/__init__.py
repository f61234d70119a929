"""Speed and memory of `nashtune fit` beside TRL's trainers; run it with `python tests/benchmarks/speed`."""

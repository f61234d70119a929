"""The commands by name, with their summaries, and what is known of each before its module is imported."""

from __future__ import annotations

from nashtune.trust import OPTIONS

LIGHTNING: dict[str, str] = {
    "fit": "train a model by a spec",
    "validate": "measure a checkpoint on the validation rows",
    "test": "measure a checkpoint on the test rows",
    "predict": "implicit rewards of every held-out row, as JSON lines",
}
"""Commands of the Lightning CLI, which reads the rest of the command line."""

THIN: dict[str, str] = {
    "list": "list the specs that are known by name",
    "show": "show a spec: equation, conventions, every component and value with its origin",
    "diff": "show what differs in meaning between two specs",
    "check": "check a spec, and a run, without loading a model",
    "schema": "print the JSON schema of spec files, for editors",
    "plugins": "list plugins: name, version, status, components, failure reason",
    "new": "begin a plugin of your own: a distribution with a loss, a spec, vectors and tests that pass",
    "import": "turn a config of TRL, LLaMA-Factory or Axolotl into a spec and a run file",
}
"""Commands that never import torch."""

HEAVY: dict[str, str] = {
    "vectors": "check a spec's loss and gradients against known numbers, in float64",
    "verify": "run a method on preference matrices, exactly, and measure its distance from equilibrium",
    "controller": "run a spec's KL controller on a simulated plant, and say whether it settles",
    "frontier": "best-of-n overoptimisation: true reward and proxy against sqrt KL, and fitted laws",
    "export": "save a run's model as a Hugging Face folder with a model card",
    "run": "run a pipeline: several stages in one command, such as filter, reward model, PPO",
    "compare": "train several specs on the same data and budget, and play their policies against each other",
    "report": "write the HTML page of a run or of a comparison",
}
"""Commands of ours that import torch."""

CLUSTER: dict[str, str] = {
    "ray": "start fit, validate, test or predict on the machines of a Ray cluster (ddp)",
}
"""Commands that start others elsewhere."""

COMMANDS = {**LIGHTNING, **THIN, **HEAVY, **CLUSTER}
MODULES = {"import": "importing"}
"""Commands whose module cannot have their name."""
READ_NO_CODE = ("list", "schema", "plugins", "new")
"""Commands that name no class and load no model."""
WRITE_IT_DOWN = (*LIGHTNING, *CLUSTER, "run", "compare")
"""Commands that keep what they were given in files, which are UTF-8."""
TRACEBACK = "NASHTUNE_TRACEBACK"
"""Environment variable: an error is raised as it is, and Python shows where."""


def overview() -> str:
    """What `nashtune --help` prints: every command with its summary."""
    groups = {
        "Train and evaluate (--spec NAME_OR_FILE --config RUN_FILE --a.b.c VALUE; --help lists all)": LIGHTNING,
        "Look before you train (no torch, well under a second)": THIN,
        "Prove and take away": HEAVY,
        "Train elsewhere": CLUSTER,
    }
    lines = [
        "usage: nashtune COMMAND [OPTIONS]",
        "",
        "Declarative preference alignment of language models: a spec names loss, KL controller and schedule.",
    ]
    for title, commands in groups.items():
        lines += ["", f"{title}:", *(f"  {name:<10} {summary}" for name, summary in commands.items())]
    lines += ["", f"What a command may trust ({', '.join(READ_NO_CODE)} need nothing):"]
    lines += [f"  {option} {text}" for option, text in OPTIONS.items()]
    lines += [
        "",
        "nashtune COMMAND --help explains a command; nashtune --version prints the version.",
        "Exit codes: 0 done, 1 the check failed, 2 the input was wrong.",
        f"{TRACEBACK}=1 shows where in the code an error was raised.",
    ]
    return "\n".join(lines)

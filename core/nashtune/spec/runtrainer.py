"""The section `trainer` of a run file: its names, the values that matter before torch, and classes it may name."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.plugins.allowed import installed, refuse_foreign
from nashtune.plugins.isclass import refuse_functions
from nashtune.plugins.source import read_module
from nashtune.spec.annotations import parse
from nashtune.spec.findings import Collector
from nashtune.spec.loader import KeyPath
from nashtune.spec.run import Runs
from nashtune.spec.runranks import problems
from nashtune.spec.settings import where_and_what
from nashtune.spec.types import Mismatch, Typed, describe
from nashtune.trust import grants, within

TRAINER = {
    "accumulate_grad_batches": "PositiveInt",
    "max_epochs": "int | None",
    "max_steps": "int",
    "num_nodes": "PositiveInt",
}
"""What the number of steps depends on."""
TRAINER_PACKAGES = (
    *(
        f"lightning.pytorch.{part}"
        for part in ("callbacks", "loggers", "strategies", "profilers", "plugins", "accelerators")
    ),
    *(f"lightning.fabric.{part}" for part in ("plugins", "strategies", "accelerators", "loggers")),
    "nashtune.sharding.strategy",
    "nashtune.comparison.spent",
    "torch.nn",
    "torch.optim",
    "torch.profiler",
    "torch.distributed.algorithms.ddp_comm_hooks",
    "torch.distributed.device_mesh",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
)
"""Whose classes the section `trainer` may name: loggers, callbacks, strategies, profilers and what they are made of."""
TYPE_PACKAGES = ("transformers.models",)
"""Whose classes may be named where a class itself is asked for (the layers of a model), and are not built."""
FUNCTION_PACKAGES = ("torch.distributed.algorithms.ddp_comm_hooks", "torch.profiler")
"""Whose functions may be named where one is asked for; no file says what they are called with."""


def trainer_packages() -> list[str]:
    """Whose classes the section `trainer` may name, installed plugins among them."""
    return [*(module for module in installed() if not within(module, "nashtune")), *TRAINER_PACKAGES]


def check_trainer(runs: Runs, found: Collector, partial: bool) -> dict[str, Any]:
    """The trainer's options; names are checked, and of values what many processes depend on: others are Lightning's.

    Args:
        runs: The run files.
        found: Gets what is wrong.
        partial: Whether a checkpoint or the command line may add what is missing.
    """
    given = runs.data.get("trainer", {})
    if not isinstance(given, Mapping):
        found.add(f"{runs.where('trainer')}: trainer takes a mapping of options, found {describe(given)}")
        return {}
    known = trainer_options()
    for key in given:
        if key.removesuffix("+") not in known:  # `callbacks+` appends to a list
            where = runs.where("trainer", key)
            hint = nearest(key, known).partition(" (known")[0]
            found.add(f"{where}: trainer.{key} is not an option of Lightning's Trainer{hint}")
        if key in TRAINER:
            try:
                parse(TRAINER[key]).check(given[key])
            except Mismatch as mismatch:
                found.add(f"{where_and_what(runs.where('trainer', key), f'trainer.{key}')}: {mismatch}")
    for path, target in _class_paths(given, ("trainer",)):
        try:
            refuse_foreign(target, packages=trainer_packages())
            if not any(within(target.replace(":", "."), prefix) for prefix in grants().imports):
                refuse_functions(target)
        except InputError as error:
            found.add(f"{where_and_what(runs.where(*path), '.'.join(map(str, path)))}: {error}")
    if not partial:
        check_ranks(runs, found)
    return {key: value.value if isinstance(value, Typed) else value for key, value in given.items()}


def check_ranks(runs: Runs, found: Collector) -> None:
    """Note what is wrong with strategy, accelerator and devices, each by itself and together."""
    for option, problem in problems(runs.data.get("trainer", {})):
        found.add(f"{where_and_what(runs.where('trainer', option), f'trainer.{option}')}: {problem}")


def _class_paths(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """(key path, class) of every `class_path` with a dot; the parser asks again, of everything that it imports."""
    value = value.value if isinstance(value, Typed) else value
    if isinstance(value, Mapping):
        for key, part in value.items():
            text = part.text if isinstance(part, Typed) else part
            if key == "class_path" and isinstance(text, str) and "." in text:
                yield (*path, key), text
            yield from _class_paths(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _class_paths(part, (*path, number))


@functools.cache
def trainer_options() -> tuple[str, ...]:
    """Arguments of Lightning's Trainer, from its source: importing it takes five seconds."""
    tree = read_module("lightning.pytorch.trainer.trainer").names["Trainer"]
    assert isinstance(tree, ast.ClassDef)
    init = next(one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    return tuple(argument.arg for argument in init.args.kwonlyargs)

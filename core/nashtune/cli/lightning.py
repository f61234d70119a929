"""`nashtune fit | validate | test | predict`: the Lightning CLI around our spec.

The spec is resolved here, by the same resolver as every other command, and reaches the parser as one plain
dictionary; the rest (`policy`, `data`, `trainer`, `engine`, ...) is Lightning CLI as usual. Layers, lowest first:
checkpoint, run files in order, command line.
"""

from __future__ import annotations

import os

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # lightning 2.6 calls what jsonargparse 5 removes
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import set_parsing_settings
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from nashtune.cli.named import refuse_calls
from nashtune.cli.quiet import quiet
from nashtune.cli.session import Session, prepare
from nashtune.data.module import PreferenceData
from nashtune.errors import InputError, nearest
from nashtune.logprobs import EngineName
from nashtune.models.policy import PolicyConfig
from nashtune.once import said_once
from nashtune.plugins.loading import lies_here
from nashtune.spec.findings import Collector
from nashtune.spec.runranks import problems
from nashtune.spec.runtrainer import TYPE_PACKAGES, trainer_packages
from nashtune.spec.secrets import find_secrets
from nashtune.training.commands import evaluate, predict
from nashtune.training.fit import fit
from nashtune.training.module import AlignmentModule
from nashtune.training.samples import SampleSettings
from nashtune.trust import IMPORT, grants

SUBCOMMANDS = ("fit", "validate", "test", "predict")


class Parser(LightningArgumentParser):
    """Says what is wrong in one line with the nearest name, instead of pages of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` at the top; inner class parsers must raise for the outer one to add its context."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise InputError(friendly(message, {action.dest for action in self._actions} - {"help", "config"}))


def friendly(message: str, known: set[str]) -> str:
    """The parser's message on one line, with the option it is about first and the nearest known option last.

    Args:
        message: As jsonargparse words it.
        known: Every option of the command, dotted.
    """
    text = re.sub(r"\s+", " ", message).strip()
    if denied := re.search(r"Importing '([\w.]+)' is not allowed", text):
        place = re.search(r'Parser key "([\w.+]+)"', text)
        return (
            f"{place[1] if place else 'trainer'}: {denied[1]} is not imported, because that runs its code. Allowed: "
            f"installed plugins, what Lightning's Trainer is made of, and what you trust: add `{IMPORT} "
            f"{denied[1].partition('.')[0]}` to the command (it cannot be said in a file)"
        )
    if absent := re.search(r"No module named '([\w.]+)'", text):
        text += lies_here(absent[1])
    unknown = re.search(r"(?:does not accept option '|unrecognized arguments: --)([\w.]+)", text)
    if unknown:
        section = unknown[1].rpartition(".")[0]
        siblings = {k for k in known if section and k.startswith(f"{section}.")} or {k.partition(".")[0] for k in known}
        return f"{unknown[1]}: no such option{nearest(unknown[1], siblings)}"
    missing = re.search(r"arguments are required: (?:\w+\.)?(policy\.path|\w+(?:\.\w+)*)", text)
    if missing:
        return f"{missing[1]}: is required; give it in a run file (--config FILE) or as --{missing[1]} VALUE"
    key = re.match(r'Parser key "([\w.]+)": (.*)', text)
    return f"{key[1]}: {key[2]}" if key else text


_allowed_before: set[str] = set()  # the parser adds to its list of what it may import, and a process may run commands


def limit_imports() -> None:
    """Let the parser import nothing but what class paths may name; it would import what any text names."""
    own = "nashtune.models.config"  # the parser names the class of `policy.lora` by its path
    allowed = {*trainer_packages(), *TYPE_PACKAGES, own, *grants().imports}
    set_parsing_settings(
        import_path_denylist=["*", *sorted(_allowed_before - allowed)],
        import_path_allowlist=sorted(allowed),
        instantiate_subclass_spec_in_any=False,  # or any class could be made where an argument takes anything
    )
    _allowed_before.update(allowed)


class NashtuneCLI(LightningCLI):
    """Lightning CLI with a resolved spec, and our own module, data and callbacks.

    Args:
        session: What the front has resolved: spec, run folder, checkpoint; None where only help is asked for.
        args: Arguments for the parser, the subcommand first.
    """

    def __init__(self, session: Session | None, args: list[str]) -> None:
        self.session = session
        limit_imports()
        options = {"parser_mode": "yaml", "allow_abbrev": False, "prog": "nashtune"}
        super().__init__(
            model_class=AlignmentModule,
            datamodule_class=PreferenceData,
            save_config_callback=None,
            trainer_defaults={"log_every_n_steps": 1, "num_sanity_val_steps": 0, "max_epochs": 1},
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={**options, **{name: dict(options, prog=f"nashtune {name}") for name in SUBCOMMANDS}},
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Sections of a run file: trainer, data, policy, and what belongs to the run alone."""
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})
        parser.add_lightning_class_args(PreferenceData, "data")
        parser.add_class_arguments(PolicyConfig, "policy")
        parser.add_class_arguments(SampleSettings, "samples")
        parser.add_argument("--spec", type=dict, help="Spec: a name, a file, or overrides --spec.kl.beta 0.2")
        parser.add_argument("--engine", type=EngineName, default="auto", help="Log-prob engine; see docs/engines.md")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to go on from; `last` of --run_dir, or `auto`: that if there is one, else from the start",
        )
        parser.add_argument("--run_dir", type=str | None, default=None, help="Run folder (default: runs/SPEC-NNN)")
        parser.add_argument("--save_every", type=PositiveInt, default=50, help="Optimiser steps between checkpoints")
        parser.add_argument("--keep_checkpoints", type=PositiveInt, default=1, help="How many of the newest stay")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Trainer methods and their arguments that are no options: objects, and the checkpoint, which is ours."""
        ours = {"ckpt_path", "weights_only"}
        return {name: {*skipped, *ours, "verbose"} for name, skipped in LightningCLI.subcommands().items()}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """As Lightning's, without its warning that arguments are given from Python."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: the session has put the checkpoint's values below files and flags already."""

    def instantiate_classes(self) -> None:
        """Build module and data from plain values, so that checkpoints hold plain values."""
        refuse_calls(self.config[self.subcommand])
        chosen = self.config[self.subcommand]
        plain = yaml.safe_load(self._parser(self.subcommand).dump(chosen, skip_none=False))
        self.plain = {
            name: value for name, value in plain.items() if name not in ("config", "ckpt_path", "weights_only")
        }
        for path, problem in find_secrets(self.plain):
            raise InputError(f"{'.'.join(map(str, path))}: {problem}")
        found = Collector()
        for option, problem in problems(self.plain["trainer"]):
            found.add(f"trainer.{option}: {problem}")
        found.close()
        self._refuse_other_policy()
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = AlignmentModule(spec=self.plain["spec"], policy=self.plain["policy"], engine=self.plain["engine"])

    def _set_seed(self) -> None:
        """As Lightning's, with a message instead of a traceback."""
        seed = self._get(self.config, "seed_everything")
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise InputError(f"seed_everything: {seed}; it is a whole number from 0 to 4294967295")
        super()._set_seed()

    def _refuse_other_policy(self) -> None:
        """A run goes on with its own model: another one would also be another reference."""
        saved = self.session.saved_policy if self.session and self.subcommand == "fit" else None
        for name, value in (saved or {}).items():
            if name not in ("gradient_checkpointing", "attention") and self.plain["policy"].get(name) != value:
                raise InputError(
                    f"policy.{name}: {self.plain['policy'].get(name)}, but the checkpoint was trained with {value}; "
                    "leave it out to go on with the run, or start a new run without --ckpt_path"
                )

    def _run_subcommand(self, subcommand: str) -> None:
        command = {"fit": fit, "validate": evaluate, "test": evaluate, "predict": predict}[subcommand]
        assert self.session is not None, "help ends in the parser"
        command(self, self.session)


def run(subcommand: str, argv: Sequence[str]) -> int:
    """Run one of the four commands; the entry point calls this with what follows the command's name."""
    if {"-h", "--help"} & set(argv):
        NashtuneCLI(None, [subcommand, "--help"])
    with said_once():
        session = prepare(subcommand, argv)
        arguments = [subcommand]
        if session.config:
            arguments.append(f"--config={json.dumps(session.config)}")
        with quiet():
            NashtuneCLI(session, [*arguments, *session.rest])
    return 0

"""Everything that can be wrong with settings, model files and data, before any weight is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from nashtune.errors import InputError
from nashtune.logprobs.attention import WRAPPED
from nashtune.models.critic import check_critic
from nashtune.models.member_order import check_passes
from nashtune.models.preflight import load_tokenizer, preflight
from nashtune.models.sizes import context_length
from nashtune.spec.optimizerrules import optimizer_problem

if TYPE_CHECKING:
    from nashtune.cli.lightning import NashtuneCLI


NOT_IN_A_GAME: dict[str, tuple[Any, ...]] = {
    "val_check_interval": (None, 1.0),
    "limit_val_batches": (None, 1.0),
    "check_val_every_n_epoch": (None, 1),
    "reload_dataloaders_every_n_epochs": (None, 0),
    "min_steps": (None,),
    "min_epochs": (None,),
    "max_time": (None,),
    "fast_dev_run": (None, False),
}
"""Options of Lightning's Trainer that mean nothing in a game, with the values that say so."""


def ready(cli: NashtuneCLI, stage: str, console: Console, *, completion_room: int = 0) -> None:
    """Check the run and read its data.

    Args:
        cli: The parsed command.
        stage: "fit", "validate", "test" or "predict".
        console: Where the table of rows goes.
        completion_room: Tokens that a game's sampler may add to a prompt.

    Raises:
        InputError: what is wrong.
    """
    module, trainer = cli.model, cli.plain["trainer"]
    _settings(cli, stage, trainer, console)
    preflight(
        module.policy.config,
        references=module.references,
        template=cli.datamodule.template,
        head=module.spec.head,
    )
    if module.loss.uses_values and module.loss.critic_init == "reward_model":
        check_critic(module.policy.config.path, module.oracle_model)
    tokenizer = load_tokenizer(module.policy.config.path)
    game = {"completion_room": completion_room} if module.is_game else {}
    cli.datamodule.bind(
        tokenizer=tokenizer,
        rows="prompts" if module.is_game else module.loss.rows,
        reads=module.loss.reads,
        uses_p_chosen=module.loss.uses_p_chosen,
        uses_margin=module.loss.uses_margin,
        compares_rows=module.objective.compares_rows(module.loss.rows),
        seed=int(cli.plain["seed_everything"]),
        context=context_length(module.policy.folder),
        **game,
    )
    cli.datamodule.setup(stage)
    if stage == "fit" and not module.is_game:
        _check_interval(trainer["val_check_interval"], cli.datamodule.steps_per_epoch(1, 1))
    for report in cli.datamodule.reports.values():
        console.print(report.table())


def _settings(cli: NashtuneCLI, stage: str, trainer: Any, console: Console) -> None:
    module = cli.model
    if module.spec.head is not None and stage == "fit":
        if note := check_passes(module.spec.head, trainer):
            console.print(f"note: {note}", soft_wrap=True)
    if module.is_game and stage != "fit":
        raise InputError(
            f"nashtune {stage}: the spec '{module.spec.name}' makes its rows in its own rounds; `nashtune fit` ends "
            "with a comparison of its policies on held-out prompts. To measure its policy on preference pairs, give a "
            "pairwise spec and the exported model: nashtune validate --spec dpo --policy.path RUN_DIR/export"
        )
    if str(trainer["precision"]).endswith("-true") and trainer["precision"] != "32-true":
        raise InputError(
            f"trainer.precision: {trainer['precision']} would cast the policy and not its reference; set "
            "policy.precision (the dtype of all weights), or trainer.precision: bf16-mixed"
        )
    head_alone = module.spec.head is not None and module.spec.head.trunk == "frozen"  # the head is float32 anyway
    if stage == "fit" and (
        problem := optimizer_problem(
            module.spec.optimizer,
            precision=module.policy.config.precision,
            trains_weights=not (module.policy.is_lora or head_alone),
        )
    ):
        raise InputError(problem)
    if trainer["accumulate_grad_batches"] < 1:
        raise InputError(f"trainer.accumulate_grad_batches: {trainer['accumulate_grad_batches']}; it is 1 or more")
    attention, engine = module.policy.config.attention, cli.plain["engine"]
    if engine in ("shared", "packed") and attention not in WRAPPED:
        raise InputError(
            f"engine: {engine} takes over the attention from {' or '.join(WRAPPED)}, and policy.attention is "
            f"{attention}; use policy.attention: sdpa (a packed pass brings its own kernels, flash on a GPU included), "
            "or engine: tiled"
        )
    if trainer["log_every_n_steps"] is not None and trainer["log_every_n_steps"] < 1:
        raise InputError(f"trainer.log_every_n_steps: {trainer['log_every_n_steps']}; it is 1 or more")
    if not module.is_game:
        return
    for name in ("limit_train_batches", "overfit_batches"):
        whole = (None, 1.0) if name == "limit_train_batches" else (None, 0.0)
        if trainer[name] not in whole or _is_count(trainer[name]):
            raise InputError(
                f"trainer.{name}: {trainer[name]} would end a game's rounds in the middle; leave it out, and shorten "
                "the game by --spec.schedule.rounds, --data.prompts_per_round or --trainer.max_steps"
            )
    for name, usual in NOT_IN_A_GAME.items():
        shares = any(isinstance(value, float) for value in usual)
        if trainer[name] not in usual or (shares and _is_count(trainer[name])):
            raise InputError(
                f"trainer.{name}: {trainer[name]} is not read by a game, which has no validation between its steps and "
                "ends with its rounds or at trainer.max_steps; leave it out"
            )
    if trainer["max_steps"] == 0:
        raise InputError("trainer.max_steps: 0 trains nothing; leave it out, or give 1 or more")
    if trainer["max_epochs"] is None or trainer["max_epochs"] < 1:
        raise InputError(
            f"trainer.max_epochs: {trainer['max_epochs']}; in a game it is the passes over the rows of each update, 1 "
            "or more"
        )


def _is_count(value: Any) -> bool:
    """Whether Lightning takes a number for one of micro-batches: 1 is one of them, 1.0 is all."""
    return isinstance(value, int) and not isinstance(value, bool) and value != 0


def _check_interval(interval: Any, batches: int) -> None:
    if isinstance(interval, int) and interval > batches:
        raise InputError(
            f"trainer.val_check_interval: {interval}, but an epoch has {batches} "
            "micro-batches; give a smaller number, or a share of the epoch such as 0.5"
        )

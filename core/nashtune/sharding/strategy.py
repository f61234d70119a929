"""What `trainer.strategy: fsdp2` names: Lightning's ModelParallelStrategy over data-parallel processes alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy, StrategyRegistry
from torch.optim import Optimizer

from nashtune.errors import InputError
from nashtune.notes import note
from nashtune.ranks import rank
from nashtune.sharding.files import is_sharded_checkpoint, load_sharded, save_sharded
from nashtune.sharding.tensors import DTensor, full, piece
from nashtune.spec.runranks import FSDP1, SCALED
from nashtune.trust import IMPORT

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

NAME = "fsdp2"


class FSDP2Strategy(ModelParallelStrategy):
    """Weights, gradients and optimiser state cut up over all processes (FSDP2); see `sharding.placing`.

    Either kind of checkpoint can be gone on with by any strategy, on any number of processes.

    Args:
        checkpoints: "full": one file, which rank 0 writes from whole weights and moments, one after the other; main
            memory on its machine must hold them all. "sharded": a folder, into which every process writes its pieces.
        process_group_backend: Of torch.distributed; None takes nccl on GPUs and gloo on a CPU.
        timeout: After which a process stops to wait for the others.
    """

    def __init__(
        self,
        *,
        checkpoints: Literal["full", "sharded"] = "full",
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.checkpoints = checkpoints

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the saved optimiser state to `load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """All processes are in one group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: the module says in its own hook what is trained, and the rest need not be gathered."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state, named by the parameters' numbers: pieces, or whole on rank 0 and empty on the others."""
        state: dict[str, Any] = getattr(optimizer, "_optimizer", optimizer).state_dict()
        if self.checkpoints == "sharded":
            return state
        whole = {index: {key: _on_rank_0(one) for key, one in own.items()} for index, own in state["state"].items()}
        return {**state, "state": whole} if rank() == 0 else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each rank takes its pieces."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            saved = [number for group in state["param_groups"] for number in group["params"]]
            own = {
                number: {key: _as(weight, one) for key, one in state["state"][number].items()}
                for number, weight in zip(saved, weights, strict=True)
                if number in state["state"]
            }
            optimizer.load_state_dict({**state, "state": own})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """One file or a folder."""
        if self.checkpoints == "sharded":
            save_sharded(Path(filepath), checkpoint)
        else:
            Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """From either kind."""
        path = Path(checkpoint_path)
        if not is_sharded_checkpoint(path):
            return Strategy.load_checkpoint(self, path, weights_only)
        return load_sharded(path, cast(Any, self.lightning_module).policy.trained(), self.optimizers)


def _on_rank_0(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    whole = full(value)
    return whole.cpu() if rank() == 0 else None


def _as(weight: torch.Tensor, value: Any) -> Any:
    """A number of each weight is cut up as the weight is; one of the step is not."""
    cut = isinstance(value, torch.Tensor) and isinstance(weight, DTensor) and value.shape == weight.shape
    return piece(weight, value) if cut else value


def own_strategy(asked: Any) -> Any:
    """What the user asked for, with Lightning's own FSDP2 strategy as ours.

    Args:
        asked: `trainer.strategy`: a name, or a strategy that was made from a class path.

    Raises:
        InputError: tensor parallelism, which is not supported, FSDP1, or what is no strategy.
    """
    if isinstance(asked, str) and "." in asked:  # the parser makes a strategy of a class that it may import
        raise InputError(
            f"trainer.strategy: {asked} is no strategy, or not one that may be imported: that runs its code. Give ddp, "
            "fsdp2, fsdp2_sharded or the class of one of Lightning's or nashtune's own, or trust its package: "
            f"{IMPORT} {asked.partition('.')[0]}"
        )
    if isinstance(asked, FSDPStrategy):  # of any name: a class of somebody's own
        raise InputError(f"trainer.strategy: {FSDP1}")
    if type(asked) is not ModelParallelStrategy:
        return asked
    tensor_parallel = asked._tensor_parallel_size
    if tensor_parallel not in (1, "auto"):
        raise InputError(
            f"trainer.strategy: tensor_parallel_size {tensor_parallel} is not supported; ModelParallelStrategy cuts "
            "layers up over data-parallel processes here (tensor_parallel_size 1), as `fsdp2` does"
        )
    return FSDP2Strategy(
        process_group_backend=asked._process_group_backend, timeout=asked._timeout or timedelta(minutes=30)
    )


def check_strategy(trainer: Trainer, optimizer: str) -> None:
    """Refuse what is known not to work, and say what was not tried.

    Args:
        trainer: Made.
        optimizer: Name of the spec's.

    Raises:
        InputError: the strategy or what is combined with it is not supported.
    """
    from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy

    strategy = trainer.strategy
    if isinstance(strategy, DeepSpeedStrategy):
        note("trainer.strategy: DeepSpeed is handed on to Lightning as it is; it is not tested here")
        return
    if isinstance(strategy, FSDP2Strategy):
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise InputError(f"trainer.precision: {SCALED}")  # of a plugin: the option itself was seen before
        if optimizer == "adamw_8bit":
            raise InputError(
                "spec.optimizer.name: adamw_8bit quantises blocks of whole weights, and fsdp2 cuts them up; use adamw "
                "with fsdp2 (each rank keeps its share of the moments), or ddp"
            )
        return
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise InputError(f"trainer.strategy: {type(strategy).__name__} is not supported; use one device, ddp or fsdp2")


if NAME not in StrategyRegistry:
    StrategyRegistry.register(NAME, FSDP2Strategy, description="FSDP2 over all processes")
    StrategyRegistry.register(
        f"{NAME}_sharded", FSDP2Strategy, description="FSDP2, checkpoints in pieces", checkpoints="sharded"
    )

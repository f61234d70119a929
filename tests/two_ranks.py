"""The reference `cached` on two data-parallel processes of one machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from killing import Forked


def prepared_on_two_ranks(model: Path, folder: Path, seeds: list[int]) -> list[int]:
    """Let both ranks prepare the same batches; each writes what it recalls to `folder/rank-R.pt`.

    Args:
        model: Folder of the policy.
        folder: For the cache, in `folder/cache`, and for what ranks leave.
        seeds: Of one batch each.

    Returns:
        Exit codes.
    """
    (folder / "store").unlink(missing_ok=True)
    ranks = [Forked(target=_rank, args=(rank, str(model), str(folder), seeds)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    return [process.exitcode if process.exitcode is not None else -1 for process in ranks]


def _rank(rank: int, model: str, folder: str, seeds: list[int]) -> None:
    import torch

    from nashtune.logprobs import get_engine
    from nashtune.models.policy import HFPolicy, PolicyConfig
    from nashtune.references.cached import CachedReference
    from nashtune.testing import token_batch

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    policy = HFPolicy(PolicyConfig(path=model))
    policy.load()
    reference = CachedReference(folder=f"{folder}/cache")
    reference.attach(policy)
    batches = [token_batch([(3, 5), (4, 6)], seed=seed) for seed in seeds]
    try:
        reference.prepare(batches, get_engine("tiled"), "train")
    except Exception as error:
        print(error, file=sys.stderr)
        os._exit(3)
    torch.save([reference.recall(batch) for batch in batches], f"{folder}/rank-{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)

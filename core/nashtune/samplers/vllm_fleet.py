"""All engines of a run: pushing the live weights to them, proving that they took them, drawing from them."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from nashtune.errors import InputError
from nashtune.models.policy import HFPolicy
from nashtune.ranks import everyone, rank, together
from nashtune.samplers.vllm_engines import Drawn, Engine, Request, Settings
from nashtune.samplers.vllm_probe import draw_difference, mismatch, tolerance_of, weights_difference


class Fleet:
    """The engines of a run, all with the same weights.

    Args:
        engines: One at least.
        policy: The live policy.
        folder: Where weights are kept for the engines; nothing else may be in it.
        probe: Token ids that both sides score.
        settings: What shapes a draw.
        tolerance: Largest difference in nats; None goes by the dtypes.

    Attributes:
        max_length: Tokens of a sequence that every engine takes; None where none says.

    Raises:
        InputError: an engine cannot be reached, or gives log-probs of another distribution than that of a draw.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        policy: HFPolicy,
        *,
        folder: Path,
        probe: Sequence[int],
        settings: Settings,
        tolerance: float | None,
    ) -> None:
        facts = [engine.facts() for engine in engines]
        accepted = [tolerance or tolerance_of(policy, fact.dtype) for fact in facts]
        for engine, fact in zip(engines, facts, strict=True):
            # rounding in 16 bits may hide the difference that top-p makes, so the engine's own word counts as well
            if fact.logprobs_mode and fact.logprobs_mode not in settings.logprobs_modes():
                raise engine.error(f"it gives {fact.logprobs_mode}, not {_needed(settings)}")
        self.max_length = min((fact.max_length for fact in facts if fact.max_length is not None), default=None)
        self._engines = list(zip(engines, accepted, strict=True))
        self._policy = policy
        self._folder = folder
        self._probe = probe
        self._settings = settings
        self._tag = ""  # of the weights that this run pushed last

    def __len__(self) -> int:
        """Number of engines."""
        return len(self._engines)

    def compare(self) -> None:
        """Pushes the weights where an engine answers otherwise than the policy, then compares a draw's log-probs.

        Raises:
            InputError: an engine still differs.
        """
        on_rank_0(self._compare)

    def push(self, version: str) -> None:
        """Has every engine load the live weights, and compares its answers with the policy's.

        Raises:
            InputError: an engine cannot load them or does not answer as they do; their folder is kept.
        """
        self._tag = on_rank_0(lambda: self._push(version))

    def expect_own_weights(self, when: str) -> None:
        """Refuses to go on where an engine runs other weights than those that were pushed.

        Raises:
            InputError: somebody else pushed, or the engine was started anew.
        """
        for engine, _ in self._engines:
            if (found := engine.tag()) != self._tag:
                raise engine.error(
                    f"{when} drawing, somebody else gave it other weights (found {found!r}, not {self._tag!r}), or it "
                    "was started anew; each run needs servers of its own"
                )

    def draw(self, requests: Sequence[Request], shards: Sequence[int]) -> list[Drawn]:
        """Every engine draws its share at the same time; `shards` says which engine draws each request.

        Raises:
            InputError: of the engine that failed first; what the others have not begun is not drawn.
        """
        cancelled = threading.Event()
        shares = [[at for at, shard in enumerate(shards) if shard == i] for i in range(len(self))]
        results: dict[int, Drawn] = {}
        with ThreadPoolExecutor(len(self)) as pool:
            futures = [
                pool.submit(engine.draw, [requests[at] for at in share], self._settings, cancelled)
                for (engine, _), share in zip(self._engines, shares, strict=True)
            ]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future.exception() for future in futures if future.done()]
                if error := next((one for one in failed if isinstance(one, InputError)), None):
                    raise error
                for share, future in zip(shares, futures, strict=True):
                    results.update(zip(share, future.result(), strict=True))
            finally:
                cancelled.set()
        return [results[at] for at in range(len(requests))]

    def _compare(self) -> str:
        settings = self._settings
        # not one engine's word for all of them: what differs anywhere is pushed everywhere
        if not all(weights_difference(one, self._policy, self._probe).within(most) for one, most in self._engines):
            self._push("attached")
        for engine, most in self._engines if settings.temperature > 0 else []:
            difference = draw_difference(engine, self._policy, self._probe, settings, slack=min(0.1 * most, 0.02))
            if not difference.within(most):
                raise engine.error(f"log-probs of drawn tokens differ {difference} from {_needed(settings)}")
        return ""

    def _push(self, version: str) -> str:
        tag = new_tag(version)
        folder = self._folder / tag
        self._policy.save_pretrained(folder, merged=True)
        for engine, most in self._engines:
            engine.push(folder, tag)
            difference = weights_difference(engine, self._policy, self._probe)
            if not difference.within(most):
                raise engine.error(mismatch(difference, most, self._policy))
        for old in self._folder.iterdir():
            if old != folder:
                shutil.rmtree(old)
        return tag


def _needed(settings: Settings) -> str:
    return (
        f"those at temperature={settings.temperature:g}, top_p={settings.top_p:g}; start the server with "
        "--logprobs-mode processed_logprobs"
    )


def new_tag(version: str) -> str:
    """A name for weights that no other push has: of their folder, and by which an engine is known to run them."""
    return f"{re.sub(r'[^A-Za-z0-9@._-]', '_', version)}-{secrets.token_hex(4)}"


def on_rank_0(work: Callable[[], str]) -> str:
    """What `work` returns on rank 0, on every rank; where it fails, all ranks stop. Collective.

    Every rank arrives before it begins: none may still be drawing when weights change.

    Raises:
        InputError: on the other ranks, with what went wrong on rank 0.
    """
    everyone(None)
    with together("sampler"):
        found = work() if rank() == 0 else ""
    return str(everyone(found)[0])

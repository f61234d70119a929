"""Sampler `vllm`: completions from vLLM, on servers or in this process, that is proven to run the live weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Completion, Sampler, Surroundings
from nashtune.interfaces.schedule import Role
from nashtune.models.policy import HFPolicy
from nashtune.ranks import together, world
from nashtune.samplers.batching import numbers_of
from nashtune.samplers.noise import stream_seed
from nashtune.samplers.stops import check_stop, eos_tokens
from nashtune.samplers.vllm_client import Connection
from nashtune.samplers.vllm_engines import Drawn, Engine, Request, Settings
from nashtune.samplers.vllm_fleet import Fleet, new_tag
from nashtune.samplers.vllm_local import InProcessEngine
from nashtune.samplers.vllm_options import check_engine_options
from nashtune.samplers.vllm_probe import probe_ids, token_logp
from nashtune.samplers.vllm_server import ServerEngine

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # of policy.precision, by vLLM's names
LEAST_TEMPERATURE = 0.01  # vLLM raises what lies between 0 and this


class VLLMSampler(Sampler):
    """Draws from vLLM servers, or from an engine in this process, that get the live weights before every round.

    Token ids go in and come out; nothing is tokenised twice. The noise of a completion is seeded by (seed, round,
    prompt, k), and prompt i goes to server i modulo their number, so all completions of a prompt share one server's
    prefix cache. A draw is the same on any server up to the rounding of logits, which in vLLM depends on what else is
    in the batch: where two tokens are that close, another sharding or another load may draw the other one.

    `Completion.token_logp` is under the distribution that was drawn from: after temperature and top-p, renormalised.

    Args:
        completions: Completions of each prompt and round.
        max_new_tokens: Longest completion in tokens, EOS included.
        temperature: The distribution is softmax(logits / temperature), from 0.01 on; 0 takes the most likely token.
            Other values than 1 need servers started with `--logprobs-mode processed_logprobs`.
        top_p: Draws only from the smallest set of most likely tokens whose probability reaches this; 1 draws from all
            tokens. Below 1 it needs the same server option, and one pass of the live policy over each completion
            for `kept_mass`.
        stop: A completion also ends after the token that completes one of these strings. The string stays in it.
        servers: `http://HOST:PORT` of each server; they must see the run folder under the same path.
        engine: Servers, or `vllm.LLM` in this process, for a run of one process.
        engine_options: Further arguments of `vllm.LLM`, such as `{gpu_memory_utilization: 0.4}`; in_process only.
        concurrent: Requests under way at each server, of all processes together.
        timeout: Seconds until a request that brings no answer counts as failed.
        retries: Further attempts after a failed one; the waits between them double.
        backoff: Seconds before the second attempt.
        tolerance: Largest difference in nats between the two sides' log-probs of a token of the probe text; on average
            a fifth of it is accepted. None takes 1e-3 where both sides compute in fp32, 1.0 where one does in bf16,
            0.15 where one does in fp16.

    Raises:
        ValueError: the options contradict each other.
    """

    placement: ClassVar[tuple[str, ...]] = ("servers", "concurrent", "timeout", "retries", "backoff")

    def __init__(
        self,
        *,
        completions: PositiveInt = 8,
        max_new_tokens: PositiveInt = 256,
        temperature: NonNegativeFloat = 1.0,
        top_p: ClosedUnitInterval = 1.0,
        stop: list[str] | None = None,
        servers: list[str] | None = None,
        engine: Literal["server", "in_process"] = "server",
        engine_options: dict[str, Any] | None = None,
        concurrent: PositiveInt = 64,
        timeout: PositiveFloat = 600.0,
        retries: NonNegativeInt = 5,
        backoff: PositiveFloat = 1.0,
        tolerance: PositiveFloat | None = None,
    ) -> None:
        if engine == "server" and not servers:
            raise ValueError("servers: name one at least, such as ['http://localhost:8000'], or set engine: in_process")
        if engine == "in_process" and servers:
            raise ValueError("servers: not used with engine: in_process; leave one of them out")
        if engine == "server" and engine_options:
            raise ValueError("engine_options: a server gets its options on its own command line")
        check_engine_options(engine_options or {})
        if wrong := [url for url in servers or () if not url.startswith(("http://", "https://"))]:
            raise ValueError(f"servers: {wrong[0]!r} is no address; write http://HOST:PORT")
        if top_p == 0:
            raise ValueError("top_p: must be above 0; temperature: 0 takes the most likely token")
        if 0 < temperature < LEAST_TEMPERATURE:
            raise ValueError(f"temperature: vLLM draws at {LEAST_TEMPERATURE} where less is asked for; 0 is greedy")
        self.completions = int(completions)
        self.max_new_tokens = int(max_new_tokens)
        self.temperature = float(temperature)
        self.top_p = float(top_p)
        self.stop = check_stop(stop or [])
        self.servers = tuple(servers or ())
        self.engine = engine
        self.engine_options = dict(engine_options or {})
        self.concurrent = int(concurrent)
        self.timeout = float(timeout)
        self.retries = int(retries)
        self.backoff = float(backoff)
        self.tolerance = tolerance
        self._reached: list[ServerEngine] = []
        self._fleet: Fleet | None = None
        self._version = ""

    def prepare(self) -> None:
        """Reaches every server, and asks for its settings, which `attach` then knows.

        Raises:
            InputError: a server cannot be reached.
        """
        self._reached = [self._server(url, "Start it, and give the command again") for url in self.servers]
        for server in self._reached:
            server.facts()

    def attach(self, surroundings: Surroundings) -> None:
        """Reaches every engine and compares it with the live policy; one that answers otherwise is given the weights.

        A server that is left from an earlier attempt of the run holds other weights than the policy; that is no error.

        Raises:
            InputError: an engine cannot be reached, cannot load the weights, or does not answer as they do.
        """
        if not isinstance(surroundings.policy, HFPolicy):
            raise TypeError(f"a sampler decodes a language model, not {type(surroundings.policy).__name__}")
        policy = surroundings.policy
        folder = Path(surroundings.run_dir).absolute() / "vllm"
        advice = f"What is finished is kept; go on with: nashtune fit --ckpt_path last --run_dir {surroundings.run_dir}"
        self._policy = policy
        settings = Settings(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            eos=eos_tokens(policy.loaded(), surroundings.tokenizer),
        )
        probe = probe_ids(surroundings.tokenizer)
        self._version = ""
        with together("sampler"):
            if self.engine == "server":
                engines: list[Engine] = []
                for server in self._reached or [self._server(url, advice) for url in self.servers]:
                    server.advise(advice)
                    engines.append(server)
                self._reached = []  # a later run asks anew: the servers may be others then
            else:
                engines = [self._in_process(policy, folder / new_tag("attached"), advice)]
            fleet = Fleet(engines, policy, folder=folder, probe=probe, settings=settings, tolerance=self.tolerance)
        self._fleet = fleet
        fleet.compare()

    def sync(self, version: str, role: Role = "policy") -> None:
        """Saves the live weights, has every engine load them, and compares its answers with the policy's.

        Raises:
            InputError: an engine cannot be reached, cannot load the weights, or does not answer as they do.
        """
        if self._fleet is None:
            raise RuntimeError("call attach(surroundings) before sync()")
        self._fleet.push(version)
        self._version = version

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        seed: int,
        round: int = 0,
        indices: Sequence[int] | None = None,
        reference_weight: float | None = None,
    ) -> list[Completion]:
        """`n` completions of each prompt, ordered by prompt and k; `Completion.prompt` counts within `prompts`.

        Raises:
            InputError: a prompt is empty or too long, a mixture is asked for, an engine failed, or it runs other
                weights than those of the last `sync`.
        """
        fleet = self._fleet
        if fleet is None or not self._version:
            raise RuntimeError("call attach(surroundings) and sync(version) before sample()")
        if reference_weight not in (None, 0):
            raise InputError(
                f"sampler: `vllm` draws from the policy itself, but the method asks for a mixture in which the "
                f"starting policy has weight {reference_weight:g}; set spec.sampler.name to mixture"
            )
        numbers = numbers_of(prompts, indices)
        self._check(prompts, numbers, fleet.max_length)
        wanted = [(i, k) for i in range(len(prompts)) for k in range(n)]
        requests = [Request(prompt=prompts[i], seed=stream_seed(seed, round, numbers[i], k)) for i, k in wanted]
        fleet.expect_own_weights("before")
        drawn = fleet.draw(requests, [numbers[i] % len(fleet) for i, _ in wanted])
        fleet.expect_own_weights("while")
        return [
            Completion(
                prompt=i,
                k=k,
                token_ids=one.token_ids,
                token_logp=one.token_logp,
                finish=one.finish,
                kept_mass=self._kept_mass(prompts[i], one),
                version=self._version,
            )
            for (i, k), one in zip(wanted, drawn, strict=True)
        ]

    def _server(self, url: str, advice: str) -> ServerEngine:
        connection = Connection(url, timeout=self.timeout, retries=self.retries, backoff=self.backoff, advice=advice)
        return ServerEngine(connection, concurrent=max(1, self.concurrent // world()))

    def _in_process(self, policy: HFPolicy, folder: Path, advice: str) -> Engine:
        if world() > 1:
            raise InputError("sampler.engine: in_process serves a run of one process; start servers for several")
        policy.save_pretrained(folder, merged=True)
        dtype = DTYPES[policy.config.precision]
        return InProcessEngine(folder, dtype=dtype, options=self.engine_options, advice=advice)

    def _check(self, prompts: Sequence[Sequence[int]], numbers: Sequence[int], limit: int | None) -> None:
        for number, prompt in zip(numbers, prompts, strict=True):
            if not prompt:
                raise InputError(f"sampler: prompt {number} has no token")
            if limit is not None and len(prompt) + self.max_new_tokens > limit:
                raise InputError(
                    f"sampler: prompt {number} has {len(prompt)} tokens, which with "
                    f"max_new_tokens={self.max_new_tokens} exceeds the engine's longest sequence of {limit}; shorten "
                    "the prompt, lower max_new_tokens, or start the engine with a larger max_model_len"
                )

    def _kept_mass(self, prompt: Sequence[int], one: Drawn) -> tuple[float, ...]:
        if self.top_p == 1.0 or self.temperature == 0:
            return ()
        # within the nucleus, log p = log p before - log(its mass); vLLM tells the left side, the policy the middle
        before = token_logp(self._policy, prompt, one.token_ids, self.temperature)
        return tuple(
            min(max(math.exp(whole - inside), self.top_p), 1.0)
            for whole, inside in zip(before, one.token_logp, strict=True)
        )

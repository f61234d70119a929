"""Puts a run on a Ray cluster and stays until it has ended. The only module that imports Ray."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

from nashtune.errors import InputError, Interrupted
from nashtune.onray.layout import Layout, listed, waited_for
from nashtune.onray.machine import Ended, Machine, Said

ADDRESS = "RAY_ADDRESS"
GRACE = 30.0
"""Seconds that the other processes get to end by themselves after one has failed; those of torchrun."""
QUIET = 3.0
"""Seconds that the cluster may take to give the machines before it is said that they are waited for."""
TICK = 0.2
"""Seconds after which signals are looked for."""


def ray_library() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise InputError(
            "nashtune ray: the package ray is not installed; run `pip install 'nashtune[ray]'` here and on the "
            "machines of the cluster, with the same version on all"
        ) from error


def launch(layout: Layout, command: Sequence[str], told: Mapping[str, str]) -> int:
    """Run a training command on the cluster and return its exit code.

    Args:
        layout: Machines and processes.
        command: `fit` and what follows it.
        told: Variables that every process gets.

    Returns:
        0, or the code of the first process that failed (128 + n where signal n ended it).

    Raises:
        InputError: there is no ray, no cluster, or a machine cannot run nashtune.
        Interrupted: a signal came before the processes were started.
    """
    ray = ray_library()
    with _connected(ray), _hearing() as came:
        machines = _machines(ray, layout, came)
        *hosts, port = _answers(ray, [one.address for one in machines] + [machines[0].free_port], came)
        streams = {
            one.run.remote(
                list(command),
                os.getcwd(),
                dict(told),
                machine=number,
                machines=layout.machines,
                processes=layout.processes,
                meeting=(hosts[0], port),
            ): hosts[number]
            for number, one in enumerate(machines)
        }
        return _watch(ray, machines, streams, came)


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    address = os.environ.get(ADDRESS, "auto")
    if "://" in address:
        raise InputError(
            f"{ADDRESS}={address}: the command must run on a machine of the cluster, and this names one from outside; "
            "log in there, and give the command without it"
        )
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"nashtune ray: no Ray cluster was reached from this machine ({why}); begin one with `ray start --head` "
            f"and join the others to it, or set {ADDRESS}; with a token, RAY_AUTH_MODE=token is needed here too. "
            "On one machine `nashtune fit` needs no Ray"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()  # ends what the command still has on the cluster


@contextmanager
def _hearing() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C, for Ray's own handler would end this process and kill the others."""
    came: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        came.append(number)

    heard = [signal.SIGTERM]
    if callable(signal.getsignal(signal.SIGINT)):  # else a shell has put the command into the background
        heard.append(signal.SIGINT)
    before = {number: signal.signal(number, hear) for number in heard}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _machines(ray: Any, layout: Layout, came: list[int]) -> list[Any]:
    """An actor on each of as many machines."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = layout.resources(cluster_has_gpus=any(node.get("GPU", 0) for node in nodes))
    group = ray.util.placement_group([each] * layout.machines, strategy="STRICT_SPREAD")
    if not group.wait(QUIET) and not came:
        sys.stderr.write(f"waiting for {waited_for(layout.machines, each)}; Ray has now: {listed(nodes, each)}\n")
    while not group.wait(TICK):
        if came:
            raise _stopped(came)
    on = import_module("ray.util.scheduling_strategies").PlacementGroupSchedulingStrategy
    return [
        ray.remote(_Placed)
        .options(
            num_cpus=each["CPU"],
            num_gpus=each.get("GPU", 0),
            max_concurrency=2,  # signals are passed on while the processes run
            scheduling_strategy=on(placement_group=group, placement_group_bundle_index=number),
        )
        .remote()
        for number in range(layout.machines)
    ]


def _answers(ray: Any, functions: Sequence[Any], came: list[int]) -> list[Any]:
    """What functions of the machines' actors give; Ray starts an actor's process when it is first asked."""
    asked = [function.remote() for function in functions]
    try:
        while ray.wait(asked, num_returns=len(asked), timeout=TICK)[1]:  # `ray.get` would hear no signal
            if came:
                raise _stopped(came)
        return list(ray.get(asked))
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"nashtune ray: a machine of the cluster cannot start its part: {said[-1]}. nashtune must be installed for "
            "the Python that Ray runs there"
        ) from error


def _stopped(came: list[int]) -> Interrupted:
    return Interrupted("stopped before the run began: nothing was written", code=128 + came[0])


class _Placed(Machine):
    """A machine that knows its address in the cluster."""

    def address(self) -> str:
        """By which the other machines reach it."""
        return str(ray_library().util.get_node_ip_address())


def _watch(ray: Any, machines: Sequence[Any], streams: dict[Any, str], came: list[int]) -> int:
    code, until, killed = 0, float("inf"), False
    while streams:
        while came:
            number = came.pop(0)
            for machine in machines:
                machine.pass_on.remote(number)
        for stream in ray.wait(list(streams), num_returns=1, timeout=TICK)[0]:
            try:
                event = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
                continue
            except ray.exceptions.RayError as error:
                host = streams.pop(stream)
                if killed:
                    continue
                sys.stderr.write(f"{host}: Ray has lost the processes of this machine ({type(error).__name__})\n")
                event = Ended(0, 1)
            if isinstance(event, Said):
                _print(event)
            elif event.code and not code:
                code = event.code if event.code > 0 else 128 - event.code
                until = time.monotonic() + GRACE
        if streams and not killed and time.monotonic() > until:
            sys.stderr.write(f"a process has ended with code {code}; the others did not follow, and are killed\n")
            killed = True
            for machine in machines:
                ray.kill(machine)
    return code


def _print(said: Said) -> None:
    """Rank 0's output as it is; of the others each line with its rank, on stderr."""
    stream = sys.stdout.buffer if said.rank == 0 and said.stream == 1 else sys.stderr.buffer
    stream.write(said.text if said.rank == 0 else b"[%d] %s" % (said.rank, said.text))
    stream.flush()

"""The driver's part with a stand-in for Ray: exit codes, output, lost machines, processes that do not follow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nashtune.errors import InputError, Interrupted
from nashtune.onray import cluster
from nashtune.onray.machine import Ended, Said


class Actor:
    """A machine; `told` and `killed` are what it was asked to do."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.killed = False
        self.pass_on = SimpleNamespace(remote=self.told.append)


class Ray:
    """What the driver uses of the package; a generator stands for a stream of events."""

    exceptions = SimpleNamespace(RayError=ConnectionAbortedError)

    def get(self, value: Any) -> Any:
        return value

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return streams[:num_returns], streams[num_returns:]

    def kill(self, actor: Actor) -> None:
        actor.killed = True


def watch(*events: Iterator[Any], came: list[int] | None = None, actors: list[Actor] | None = None) -> int:
    streams = {stream: f"host{number}" for number, stream in enumerate(events)}
    return cluster._watch(Ray(), actors or [Actor() for _ in streams], streams, came if came is not None else [])


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([2, 2], 2), ([0, 143], 143), ([143, 0], 143), ([-9, 1], 137), ([1, -9], 1)],
)
def test_the_code_is_that_of_the_first_process_that_failed(codes: list[int], expected: int) -> None:
    assert watch(iter([Ended(rank, code) for rank, code in enumerate(codes)])) == expected


def test_rank_0_is_passed_through_and_others_have_their_number(capfdbinary: Any) -> None:
    events = [Said(0, 1, b"out"), Said(0, 2, b"err\r"), Said(3, 1, b"here\n"), Said(3, 2, b"there\n")]
    assert watch(iter(events)) == 0
    assert capfdbinary.readouterr() == (b"out", b"err\r[3] here\n[3] there\n")


def test_signals_go_to_all_machines(capsys: Any) -> None:
    actors = [Actor(), Actor()]
    watch(iter([Ended(0, 143)]), iter([Ended(1, 0)]), came=[15, 15], actors=actors)
    assert [actor.told for actor in actors] == [[15, 15], [15, 15]]


def test_processes_that_do_not_follow_a_failed_one_are_killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "GRACE", -1.0)
    actors = [Actor(), Actor()]

    def waits() -> Iterator[Any]:
        while not actors[1].killed:
            yield Ended(1, 0)
        raise ConnectionAbortedError("killed")

    assert watch(iter([Ended(0, -9)]), waits(), actors=actors) == 137
    assert all(actor.killed for actor in actors)
    err = capsys.readouterr().err
    assert err == "a process has ended with code 137; the others did not follow, and are killed\n"


def test_a_lost_machine_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def lost() -> Iterator[Any]:
        yield from itertools.repeat(Ended(2, 0), 2)
        raise ConnectionAbortedError("gone")

    assert watch(iter([Ended(0, 1)]), lost()) == 1
    said = "host1: Ray has lost the processes of this machine (ConnectionAbortedError)\n"
    assert capsys.readouterr().err == said


class Slow(Ray):
    """A machine that never answers; the `hears`-th look finds a signal."""

    def __init__(self, came: list[int], hears: int) -> None:
        self.came, self.left = came, hears

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert num_returns == len(streams) and timeout == cluster.TICK
        self.left -= 1
        if not self.left:
            self.came.append(15)
        return streams[1:], streams[:1]


def remote(value: Any) -> Any:
    return SimpleNamespace(remote=lambda: value)


def test_answers_come_in_the_order_of_the_questions() -> None:
    assert cluster._answers(Ray(), [remote("host0"), remote("host1"), remote(29500)], []) == ["host0", "host1", 29500]


def test_a_signal_is_heard_while_the_machines_are_asked() -> None:
    came: list[int] = []
    with pytest.raises(Interrupted, match="stopped before the run began: nothing was written") as caught:
        cluster._answers(Slow(came, hears=3), [remote("host0"), remote("host1")], came)
    assert caught.value.code == 143


@pytest.mark.parametrize(("text", "said"), [("", "ConnectionAbortedError"), ("why\nNo module named 'x'\n", "'x'")])
def test_a_machine_that_cannot_start_is_one_line(text: str, said: str) -> None:
    class Broken(Ray):
        def get(self, value: Any) -> Any:
            raise ConnectionAbortedError(text)

    with pytest.raises(InputError, match=rf"cannot start its part: (No module named )?{said}\. nashtune must be"):
        cluster._answers(Broken(), [remote("host0")], [])


def test_an_address_from_outside_the_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=ray://head:10001: the command must run on a machine of"):
        with cluster._connected(Ray()):
            pass


def test_no_cluster_is_one_line_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        assert options["address"] == "auto"
        raise ConnectionError("Could not find any running\nRay instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match=r"\(Could not find any running Ray instance\.\); begin one with `ray start"):
        with cluster._connected(SimpleNamespace(init=init)):
            pass

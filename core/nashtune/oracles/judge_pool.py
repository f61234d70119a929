"""Several questions at the same time, in threads that neither hold up an interrupt nor the end of the process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Question = TypeVar("Question")
Verdict = TypeVar("Verdict")


def in_parallel(
    work: Callable[[Question, threading.Event], Verdict], questions: Sequence[Question], workers: int
) -> tuple[dict[int, Verdict], Exception | None]:
    """Work on all questions.

    The first failure sets the event that every call is given; calls under way may finish, and no new one begins. When
    the caller is interrupted nobody waits for them: the threads are daemons.

    Args:
        work: Called as work(question, stop), in several threads.
        questions: One call each.
        workers: Calls at the same time, at most.

    Returns:
        Results by number of the question, and the first failure.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Verdict | None, Exception | None]] = queue.SimpleQueue()
    stop = threading.Event()
    for i in range(len(questions)):
        todo.put(i)

    def run() -> None:
        while not stop.is_set():
            try:
                i = todo.get_nowait()
            except queue.Empty:
                break
            try:
                done.put((i, work(questions[i], stop), None))
            except Exception as error:
                done.put((i, None, error))  # before the others are told, so that theirs come after it
                stop.set()
        done.put((-1, None, None))

    threads = [threading.Thread(target=run, name="judge", daemon=True) for _ in range(min(workers, len(questions)))]
    for thread in threads:
        thread.start()
    results: dict[int, Verdict] = {}
    failure: Exception | None = None
    running = len(threads)
    try:
        while running:
            i, result, error = done.get()
            if i < 0:
                running -= 1
            elif error is None:
                results[i] = result  # type: ignore[assignment]
            else:
                failure = failure or error
    finally:  # also when an interrupt ends the waiting
        stop.set()
    return results, failure

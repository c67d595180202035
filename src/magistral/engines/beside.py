"""Judging beside the asking: an engine that is stepped by whoever takes its completions waits for no verdict."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from magistral.errors import MagistralError

T = TypeVar("T")
R = TypeVar("R")
N_THREADS = 4
"""Things judged at once (chosen: verifiers and the box hold those back that find no free process)."""
AHEAD = 256
"""Things that may wait to be judged; then the asking waits (chosen: minutes of an engine's work, some MB)."""


def beside(things: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
    """`work` of each thing, in order, on threads of its own while the next things come: most of their time goes to processes
    that are waited for.

    Where the coming of things ends in an error, the work on those that came is given first, and then the error is raised."""
    waiting: deque[Future[R]] = deque()
    faults: list[MagistralError] = []
    threads = ThreadPoolExecutor(N_THREADS, "beside")
    try:
        for thing in _until_fault(things, faults):
            waiting.append(threads.submit(work, thing))
            while waiting and (waiting[0].done() or len(waiting) > AHEAD):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
    if faults:
        raise faults[0]


def _until_fault(things: Iterable[T], faults: list[MagistralError]) -> Iterator[T]:
    try:
        yield from things
    except MagistralError as e:
        faults.append(e)

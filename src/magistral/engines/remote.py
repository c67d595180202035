"""What engines behind HTTP have in common: many requests at once on a thread of their own, tries, and answers as they come."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from magistral.engines.base import EngineFailed, Request, Written

POLL_S = 0.2
"""How long `step` waits for an answer before it gives the caller a turn (chosen: unnoticeable beside a completion)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """How often to ask again after a fault that may pass: a lost connection, 408, 409, 425, 429, 5xx."""

    n: int = 6
    first_wait_s: float = 1.0
    """Doubled after each try, with a random part of up to as much again; a server's own Retry-After goes before it."""
    longest_wait_s: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


Work = Callable[[int], Coroutine[Any, Any, Written]]


class Refused(Exception):
    """An answer that asking again will not change."""


class Unanswered(Refused):
    """No answer, however often it was asked."""


class _Once:
    """Calls once, however often and from wherever it is called."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call, self._lock, self._done = call, threading.Lock(), False

    def __call__(self, _task: object = None) -> None:
        with self._lock:
            if not self._done:
                self._done = True
                self._call()


class Remote:
    """Work on an event loop in a thread; `step` of an engine takes what is done."""

    def __init__(self, client: httpx.AsyncClient, *, n_parallel: int, tries: Tries) -> None:
        self.client, self.tries = client, tries
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        self._room = asyncio.Semaphore(n_parallel)
        self._done: queue.Queue[tuple[int, Written | Exception | None]] = queue.Queue()
        """By ticket; None: nothing is done, but `step` shall give its caller a turn."""
        self._requests: dict[int, tuple[Request, int]] = {}
        """By ticket: a request that somebody waits for, and how many of its completions are still to come."""
        self._tasks: dict[int, list[concurrent.futures.Future[None]]] = {}
        self._ticket = 0

    @property
    def idle(self) -> bool:
        return not self._requests

    def start(self, request: Request, work: Work, after: Callable[[int], None] = lambda _i: None) -> None:
        """`work` writes the completion of one seed, given its place; `after` is told a place, once, when its work is over.

        It is told before the completion comes out of `step`, and from any thread."""
        self._ticket += 1
        self._requests[self._ticket] = (request, len(request.seeds))
        ends = [_Once(partial(after, i)) for i in range(len(request.seeds))]
        tasks = [
            asyncio.run_coroutine_threadsafe(self._one(self._ticket, work, i, end), self._loop) for i, end in enumerate(ends)
        ]
        self._tasks[self._ticket] = tasks
        for task, end in zip(tasks, ends, strict=True):
            task.add_done_callback(end)  # of one that was cancelled, perhaps before it began

    async def _one(self, ticket: int, work: Work, i: int, end: _Once) -> None:
        result: Written | Exception
        try:
            async with self._room:
                result = await work(i)
        except Exception as e:  # noqa: BLE001 - handed to the caller of `step`, who hears of it
            result = e
        end()
        self._done.put((ticket, result))

    def step(self) -> list[Written]:
        """What is done, after at most POLL_S. Raises EngineFailed, once for a request, for one that was given up."""
        written: list[Written] = []
        nudged = False
        try:
            while not self.idle:
                ticket, result = self._done.get(timeout=0 if written or nudged else POLL_S)
                nudged |= result is None
                if result is None or ticket not in self._requests:
                    continue  # cancelled
                request, n_left = self._requests[ticket]
                if isinstance(result, Exception):
                    self._give_up(ticket)
                    for w in written:  # not lost: the next step gives them
                        self._put_back(w)
                    raise EngineFailed(f"request {request.key!r}: {result}", request.key) from result
                self._requests[ticket] = (request, n_left - 1)
                if n_left == 1:
                    self._forget(ticket)
                written.append(result)
        except queue.Empty:
            pass
        return written

    def nudge(self) -> None:
        """End a `step` that waits. From any thread."""
        self._done.put((0, None))

    def cancel(self, key: Hashable) -> None:
        for ticket in [t for t, (request, _) in self._requests.items() if request.key == key]:
            self._give_up(ticket)

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Give up everything and end the thread."""
        if self._loop.is_closed():
            return
        for ticket in list(self._requests):
            self._give_up(ticket)
        self.call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.client.aclose()
        await self._loop.shutdown_asyncgens()

    def _give_up(self, ticket: int) -> None:
        for future in reversed(self._tasks[ticket]):  # those that wait for room first, else one would be let in by another's end
            future.cancel()
        self._forget(ticket)

    def _forget(self, ticket: int) -> None:
        del self._requests[ticket], self._tasks[ticket]

    def _put_back(self, written: Written) -> None:
        self._ticket += 1
        self._requests[self._ticket], self._tasks[self._ticket] = (written.request, 1), []
        self._done.put((self._ticket, written))

    async def again(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, and ask again while the fault is one that may pass. Raises Refused, or Unanswered, with the last fault's words."""
        wait_s = self.tries.first_wait_s
        for n in range(1, self.tries.n + 1):
            try:
                return await ask()
            except httpx.HTTPStatusError as e:
                fault, asked_s = words(e.response), _retry_after(e.response)
                if e.response.status_code not in (408, 409, 425, 429) and e.response.status_code < 500:
                    raise Refused(fault) from None
            except httpx.TransportError as e:
                fault, asked_s = f"{type(e).__name__}: {e}", None
            if n < self.tries.n:
                drawn_s = wait_s * (1 + random.random())
                await self.tries.sleep(min(self.tries.longest_wait_s, asked_s if asked_s is not None else drawn_s))
                wait_s *= 2
        raise Unanswered(f"{fault} ({self.tries.n} tries)")


def words(response: httpx.Response) -> str:
    """What a server says of its fault, on one line."""
    try:
        data = response.json()
    except ValueError:
        data = response.text
    for key in ("error", "detail", "message"):
        if isinstance(data, dict) and data.get(key):
            data = data[key]
    return f"HTTP {response.status_code}: {' '.join(str(data).split())[:300]}"


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None

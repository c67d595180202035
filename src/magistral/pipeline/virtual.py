"""Time that costs none, and a generator that lives in it: all that it holds grows by a token with each decode step."""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections import deque
from math import sqrt

from magistral.errors import RunFailed
from magistral.pipeline.forecast import Speeds


class _Clock(selectors.DefaultSelector):
    """Nobody waits: time is at once where the next timer is."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RunFailed("simulation: every loop waits for another, and no timer runs")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class VirtualGenerator:
    """One engine. All that it holds grows by a token with each decode step, so a completion ends at a known step."""

    def __init__(self, speeds: Speeds, *, n_slots: int, n_prompt: int) -> None:
        self.speeds, self.n_slots, self.n_prompt = speeds, n_slots, n_prompt
        self.steps = self.cached = self.busy_s = self.filled_s = self.n_written = 0.0
        self.writing: list[tuple[float, int, float, asyncio.Future[float]]] = []
        """Heap of (step at which it ends, number, step at which it began, what is told its end)."""
        self.waiting: deque[tuple[int, asyncio.Future[float]]] = deque()
        self.switches: list[float] = []
        """Steps at which new weights came."""
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._paused_s = 0.0

    @property
    def load(self) -> int:
        return len(self.writing) + len(self.waiting)

    def write(self, n_tokens: int) -> asyncio.Future[float]:
        """Told, when it is written, the mean version of the weights that wrote its tokens."""
        self.pass_time()
        end: asyncio.Future[float] = self._loop.create_future()
        self.waiting.append((n_tokens, end))
        self._go_on()
        return end

    def switch(self) -> None:
        self.pass_time()
        self.switches.append(self.steps)
        self._paused_s += self.speeds.switch_s if self.writing else 0.0
        self._go_on()

    def _pace(self) -> tuple[float, float]:
        """So many steps take b * steps + a * steps ** 2 seconds, since each adds to the cache what the next ones read: a, b."""
        s, n = self.speeds, len(self.writing)
        return s.cached_s * n / 2, s.decode_s + s.row_s * n + s.cached_s * self.cached

    def _steps_in(self, seconds: float) -> float:
        a, b = self._pace()
        return 2 * seconds / (b + sqrt(b * b + 4 * a * seconds))

    def pass_time(self) -> None:
        """What was done since it was last looked at."""
        elapsed, self._last = self._loop.time() - self._last, self._loop.time()
        if not self.writing:
            return
        self.busy_s += elapsed
        self.filled_s += elapsed * len(self.writing) / self.n_slots
        paused, self._paused_s = min(elapsed, self._paused_s), max(0.0, self._paused_s - elapsed)
        n = self._steps_in(elapsed - paused)
        self.steps += n
        self.cached += n * len(self.writing)
        self.n_written += n * len(self.writing)

    def _wake(self) -> None:
        self.pass_time()
        self._go_on()

    def _go_on(self) -> None:
        while self.writing and self.writing[0][0] <= self.steps + 1e-6:
            last, _, first, end = heapq.heappop(self.writing)
            self.cached -= self.n_prompt + last - first
            older = [s - first for s in self.switches if s > first]
            end.set_result(len(self.switches) - sum(older) / (last - first))
        while self.waiting and len(self.writing) < self.n_slots:
            n_tokens, end = self.waiting.popleft()
            self._number += 1
            heapq.heappush(self.writing, (self.steps + n_tokens, self._number, self.steps, end))
            self.cached += self.n_prompt
        if self._timer is not None:
            self._timer.cancel()
        if self.writing:
            a, b = self._pace()
            steps = max(0.0, self.writing[0][0] - self.steps)
            self._timer = self._loop.call_later(self._paused_s + b * steps + a * steps**2, self._wake)

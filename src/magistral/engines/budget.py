"""What may be spent at an endpoint, and what each completion may have cost: never less than what will be on the bill.

An endpoint bills whoever asks, also for an answer that was cut, refused half-way or not waited for. So each time that a
completion is asked for counts with its longest possible answer, and asking again needs room for one more.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

from magistral.engines.base import BudgetSpent, Counted

CHARACTERS_PER_TOKEN = 32
"""chosen: whole answers have 3 to 5; one that is said to have more was counted wrong."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """What may be spent. What is in flight counts with its longest possible answer until its true cost is known."""

    limit: float
    price_in: float
    """For a million tokens, in the currency of `limit`."""
    price_out: float
    spent: float = 0.0
    reserved: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def cost(self, n_in: int, n_out: int) -> float:
        return (n_in * self.price_in + n_out * self.price_out) / 1e6

    def bills(self, n_in: int, n_out: int, *, n: int) -> list[Bill]:
        """Of `n` completions of so many tokens at most. Raises BudgetSpent where all of them would go over the limit."""
        most = self.cost(n_in, n_out)
        self.reserve(most * n)
        return [Bill(budget=self, most=most) for _ in range(n)]

    def reserve(self, cost: float) -> None:
        """Raises BudgetSpent where it would go over the limit."""
        with self._lock:
            left = self.limit - self.spent - self.reserved
            if cost > left:
                raise BudgetSpent(
                    f"this request may cost {cost:.6f}, and {left:.6f} of the budget of {self.limit:g} is left ({self.spent:.6f} "
                    f"spent, {self.reserved:.6f} in flight): raise it or lower max_tokens"
                )
            self.reserved += cost

    def settle(self, reserved: float, cost: float) -> None:
        with self._lock:
            self.reserved -= reserved
            self.spent += cost


@dataclass(slots=True, kw_only=True)
class Bill:
    """Of one completion, asked for once or, after faults, several times. From any thread."""

    budget: Budget
    most: float
    """That it may cost each time; once is reserved from the beginning."""
    n_reserved: int = 1
    n_unknown: int = 0
    """Times that it was asked for and nobody said what it cost."""
    known: float = 0.0
    settled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def send(self) -> None:
        """It is asked for. Raises BudgetSpent where there is no room for one more longest answer."""
        with self._lock:
            if self.settled:  # was cancelled meanwhile, and what is sent now nobody would count
                raise asyncio.CancelledError
            if self.n_unknown == self.n_reserved:
                self.budget.reserve(self.most)
                self.n_reserved += 1
            self.n_unknown += 1

    def pay(self, n_in: int, n_out: int) -> None:
        """What it cost, the last time that it was asked for."""
        with self._lock:
            self.n_unknown -= 1
            self.known += self.budget.cost(n_in, n_out)

    def settle(self) -> None:
        with self._lock:
            self.settled = True
            self.budget.settle(self.n_reserved * self.most, self.n_unknown * self.most + self.known)


def can_be_true(usage: Counted, n_characters: int, max_tokens: int) -> bool:
    """Whether an endpoint may be believed that it counted so many tokens; else the longest possible answer is what was spent."""
    return usage.prompt > 0 and n_characters <= usage.completion * CHARACTERS_PER_TOKEN and usage.completion <= max_tokens

"""Which problem is asked when, and what became of each asking: exactly once, across crashes.

The curriculum is a function of the ordinal, so the ledger is two things: the next ordinal, and those asked and not yet
trained on or dropped. A resumed run asks the open ones again first.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from magistral.flow import Problem
from magistral.pipeline.loop import Asked


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from names and numbers: equal parts, equal seed, on every machine."""
    digest = hashlib.blake2b("/".join(str(p) for p in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass
class Ledger:
    problems: Sequence[Problem]
    seed: int
    group_size: int
    next_ordinal: int = 0
    open: set[int] = field(default_factory=set)
    again: list[int] = field(default_factory=list)
    """Ordinals that a crash left open, to be asked first."""
    _orders: dict[int, list[int]] = field(default_factory=dict)

    def __iter__(self) -> Ledger:
        return self

    def __next__(self) -> Asked:
        if self.again:
            ordinal = self.again.pop(0)
        else:
            ordinal, self.next_ordinal = self.next_ordinal, self.next_ordinal + 1
        self.open.add(ordinal)
        seeds = tuple(seed_of(self.seed, "completion", ordinal, i) for i in range(self.group_size))
        return Asked(ordinal=ordinal, problem=self.problem(ordinal), seeds=seeds)

    def problem(self, ordinal: int) -> Problem:
        """Each pass over the problems has an order of its own."""
        n = len(self.problems)
        turn = ordinal // n
        if turn not in self._orders:
            order = list(range(n))
            random.Random(seed_of(self.seed, "order", turn)).shuffle(order)
            self._orders[turn] = order
        return self.problems[self._orders[turn][ordinal % n]]

    def close(self, ordinal: int) -> None:
        self.open.remove(ordinal)

    def state(self) -> dict[str, Any]:
        return {"next_ordinal": self.next_ordinal, "open": sorted(self.open | set(self.again))}

    def restore(self, state: dict[str, Any]) -> None:
        self.next_ordinal, self.again, self.open = state["next_ordinal"], list(state["open"]), set()

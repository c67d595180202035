"""Which problem is asked when, and what became of each asking: exactly once, across crashes.

The curriculum is a function of the ordinal, so the ledger is two things: the next ordinal, and those asked and not yet
trained on or dropped, each with what is written of it. A resumed run asks the open ones again first, and goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magistral.engines.base import Begun
from magistral.errors import RunFolderError
from magistral.flow import Problem
from magistral.log import write_atomically
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
    open: dict[int, tuple[Begun, ...]] = field(default_factory=dict)
    """Ordinal to what is written of its completions; empty: nothing yet."""
    again: list[int] = field(default_factory=list)
    """Those of `open` that a crash left behind, to be asked first."""
    _orders: dict[int, list[int]] = field(default_factory=dict)

    def __iter__(self) -> Ledger:
        return self

    def __next__(self) -> Asked:
        if self.again:
            ordinal = self.again.pop(0)
        else:
            ordinal, self.next_ordinal = self.next_ordinal, self.next_ordinal + 1
        begun = self.open.setdefault(ordinal, ())
        seeds = tuple(seed_of(self.seed, "completion", ordinal, i) for i in range(self.group_size))
        return Asked(ordinal=ordinal, problem=self.problem(ordinal), seeds=seeds, begun=begun)

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
        del self.open[ordinal]


@dataclass(frozen=True, slots=True)
class LedgerFolder:
    """open.parquet: a row a completion that is open, and `step` and `next_ordinal` in its metadata; it is replaced whole, and
    what it says of a step counts. closed.jsonl: a line a group that was trained on or dropped."""

    path: Path

    def save(self, step: int, ledger: Ledger, closed: Sequence[Mapping[str, Any]]) -> None:
        """`closed`: as {"ordinal": 3, "step": 2, "state": "trained"}, or "dropped" with a "why"."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path.mkdir(exist_ok=True)
        with (self.path / "closed.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in closed)
        rows = [
            {"ordinal": o, "index": i, "tokens": b.tokens, "logprobs": b.logprobs, "versions": b.versions}
            for o, group in ledger.open.items()
            for i, b in enumerate(group or (Begun(),) * ledger.group_size)
        ]
        ints, floats = pa.list_(pa.int64()), pa.list_(pa.float64())
        columns = {"ordinal": pa.int64(), "index": pa.int64(), "tokens": ints, "logprobs": floats, "versions": ints}
        schema = pa.schema(list(columns.items()), {"step": str(step), "next_ordinal": str(ledger.next_ordinal)})
        temporary = self.path / ".open.partial"
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
        temporary.replace(self.path / "open.parquet")

    def read(self) -> tuple[int, int, dict[int, tuple[Begun, ...]]]:
        """The last step that was written down, the next ordinal, the open groups; (0, 0, {}) where nothing was."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.path / "open.parquet"
        if not file.exists():
            return 0, 0, {}
        try:
            table = pq.read_table(file)
            meta = table.schema.metadata
            groups: dict[int, list[Begun]] = {}
            for row in table.to_pylist():
                begun = Begun(**{name: tuple(row[name]) for name in ("tokens", "logprobs", "versions")})
                groups.setdefault(row["ordinal"], []).append(begun)
            return int(meta[b"step"]), int(meta[b"next_ordinal"]), {o: tuple(group) for o, group in groups.items()}
        except (OSError, pa.ArrowException, KeyError, TypeError) as e:
            raise RunFolderError(f"{file} cannot be read: {e}") from None

    def closed(self) -> list[dict[str, Any]]:
        """A last line cut short by a crash is left out."""
        file = self.path / "closed.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def restore(self, ledger: Ledger) -> int:
        """Take up where the folder's last step ended; what came after it is forgotten. Returns that step."""
        step, ledger.next_ordinal, ledger.open = self.read()
        ledger.again = list(ledger.open)
        if (self.path / "closed.jsonl").exists():
            kept = [line for line in self.closed() if line["step"] <= step]
            write_atomically(self.path / "closed.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        return step

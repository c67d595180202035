"""What became of each asking of a problem: exactly once, across crashes.

The curriculum is a function of the ordinal and of where its stages began. So the ledger is these, the next ordinal, and those
asked and not yet trained on or dropped, each with what is written of it. A resumed run asks the open ones again first, and
goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magistral.engines.base import Begun
from magistral.errors import RunFolderError
from magistral.log import append, whole, write_atomically
from magistral.pipeline.curriculum import Curriculum, Start, seed_of
from magistral.pipeline.roles import Asked


@dataclass
class Ledger:
    curriculum: Curriculum
    next_ordinal: int = 0
    open: dict[int, tuple[Begun, ...]] = field(default_factory=dict)
    """Ordinal to what is written of its completions; empty: nothing yet."""
    again: list[int] = field(default_factory=list)
    """Those of `open` that a crash left behind, to be asked first."""

    @property
    def group_size(self) -> int:
        return self.curriculum.rl.group_size

    def __iter__(self) -> Ledger:
        return self

    def __next__(self) -> Asked:
        if self.again:
            ordinal = self.again.pop(0)
        else:
            ordinal, self.next_ordinal = self.next_ordinal, self.next_ordinal + 1
        begun, course = self.open.setdefault(ordinal, ()), self.curriculum
        max_tokens = course.max_tokens(ordinal)
        return Asked(
            ordinal=ordinal,
            problem=course.problem(ordinal),
            seeds=tuple(seed_of(course.seed, "completion", ordinal, i) for i in range(self.group_size)),
            max_tokens=max_tokens,
            l_max=max_tokens if course.rl.changes_lengths else None,
            begun=begun,
        )

    def close(self, ordinal: int) -> None:
        del self.open[ordinal]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a ledger's folder says of a run."""

    step: int = 0
    """The last that was written down."""
    next_ordinal: int = 0
    starts: tuple[Start, ...] = (Start(0, 0),)
    open: dict[int, tuple[Begun, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LedgerFolder:
    """open.parquet: a row a completion that is open, and `step`, `next_ordinal` and `starts` in its metadata; it is replaced
    whole, and what it says of a step counts. closed.jsonl: a line a group that was trained on or dropped."""

    path: Path

    def save(self, step: int, ledger: Ledger, closed: Sequence[Mapping[str, Any]]) -> None:
        """`closed`: as {"ordinal": 3, "step": 2, "state": "trained", "right": 0.25}, or "dropped" with a "why"."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path.mkdir(exist_ok=True)
        append(self.path / "closed.jsonl", closed)
        rows = [
            {"ordinal": o, "index": i, "tokens": b.tokens, "logprobs": b.logprobs, "versions": b.versions}
            for o, group in ledger.open.items()
            for i, b in enumerate(group or (Begun(),) * ledger.group_size)
        ]
        ints, floats = pa.list_(pa.int64()), pa.list_(pa.float64())
        columns = {"ordinal": pa.int64(), "index": pa.int64(), "tokens": ints, "logprobs": floats, "versions": ints}
        starts = json.dumps([[start.step, start.ordinal] for start in ledger.curriculum.starts])
        meta = {"step": str(step), "next_ordinal": str(ledger.next_ordinal), "starts": starts}
        schema = pa.schema(list(columns.items()), meta)
        with whole(self.path / "open.parquet") as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema), partial)

    def read(self) -> Kept:
        """Raises RunFolderError where it cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.path / "open.parquet"
        if not file.exists():
            return Kept()
        try:
            # at once: a run that goes on may put another in its place, and pyarrow opens it twice
            table = pq.read_table(pa.BufferReader(file.read_bytes()))
            meta = table.schema.metadata
            groups: dict[int, list[Begun]] = {}
            for row in table.to_pylist():
                begun = Begun(**{name: tuple(row[name]) for name in ("tokens", "logprobs", "versions")})
                groups.setdefault(row["ordinal"], []).append(begun)
            return Kept(
                int(meta[b"step"]),
                int(meta[b"next_ordinal"]),
                tuple(Start(*start) for start in json.loads(meta.get(b"starts", "[[0, 0]]"))),  # an older version wrote none
                {o: tuple(group) for o, group in groups.items()},
            )
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as e:
            raise RunFolderError(f"{file} cannot be read: {e}") from None

    def closed(self) -> list[dict[str, Any]]:
        """A last line cut short by a crash is left out."""
        file = self.path / "closed.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def restore(self, ledger: Ledger, metrics: Sequence[Mapping[str, Any]]) -> int:
        """Take up where the folder's last step ended; what came after it is forgotten. Returns that step.

        `metrics`: the run's lines."""
        kept = self.read()
        ledger.next_ordinal, ledger.open, ledger.again = kept.next_ordinal, kept.open, list(kept.open)
        closed = [line for line in self.closed() if line["step"] <= kept.step]
        if (self.path / "closed.jsonl").exists():
            write_atomically(self.path / "closed.jsonl", "".join(json.dumps(line) + "\n" for line in closed))
        ledger.curriculum.restore(kept.starts, closed, [line for line in metrics if line["step"] <= kept.step])
        return kept.step

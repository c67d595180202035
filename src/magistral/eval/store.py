"""What a measurement keeps, written as it comes: a completion the moment it is finished, its verdict the moment it is judged.

completions.jsonl   a line a completion: its problem's id, index, seed, text cut in two, tokens, how it ended
verdicts.jsonl      a line a verdict: outcome, reason, answer, and what the completion was like
asked.json          how: the form of the weights, whose system prompt; a resumed run is held to it
spent.jsonl         a line whenever the budget of an endpoint went down: by how much; so --resume goes on counting
verdicts.parquet    the same with equal answers numbered alike; written whole when all are judged (columns: SCHEMA)

A killed process leaves at most a line cut short, which is taken away; so a resumed run asks for nothing twice.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from magistral.errors import RunFolderError
from magistral.eval.ask import Key
from magistral.eval.protocol import How
from magistral.log import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa


class Lines:
    """A file of JSON lines that only grows. Threads may share it. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        _cut_torn_line(path)
        self._file: IO[bytes] = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"  # half a surrogate pair is no text
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def keys(self) -> set[Key]:
        return {(row["problem_id"], row["index"]) for row in self}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return lines(self.path)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """All of a file's rows, one in memory at a time. Raises RunFolderError where one is no JSON."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row: dict[str, Any] = json.loads(line)
            except ValueError:
                raise RunFolderError(f"{path}, line {number} is no JSON: the file was changed by something else") from None
            yield row


def how_asked(folder: Path) -> How:
    """Of a run of before this was kept, nothing is known."""
    file = folder / "asked.json"
    return How(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else How()


def hold_to(folder: Path, how: How) -> None:
    """Keep how a run is asked. Raises RunFolderError where it was begun in another way: its answers would be of two models."""
    file = folder / "asked.json"
    if file.exists() and (before := how_asked(folder)) != how:
        raise RunFolderError(
            f"{folder} was begun with {_said(before)}, and this is with {_said(how)}: go on as it began, or name another --out"
        )
    write_atomically(file, json.dumps(asdict(how)) + "\n")


def _said(how: How) -> str:
    return f"weights {how.weights or 'of an endpoint'} and {'its own' if how.own_system else 'another'} system prompt"


def add_spent(folder: Path, amount: float) -> None:
    with Lines(folder / "spent.jsonl") as costs:
        costs.add({"spent": amount})


def spent_before(folder: Path, prices: tuple[float, float]) -> float:
    """What a run that was cut short has cost: as its budget counted it, what failed included, and no less than the stored
    completions cost at `prices` (of a million tokens, read and written), since it may have begun without a budget."""
    counted = math.fsum(row["spent"] for row in _whole_lines(folder / "spent.jsonl"))
    stored = math.fsum(
        row["n_prompt"] * prices[0] + row["n_tokens"] * prices[1] for row in _whole_lines(folder / "completions.jsonl")
    )
    return max(counted, stored / 1e6)


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Of a file that nobody may have mended since a kill, and that need not be there; it is left as it is."""
    if path.exists():
        with path.open("rb") as file:
            yield from (json.loads(line) for line in file if line.endswith(b"\n"))


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            end = start + newline + 1
            if newline >= 0:
                break
        file.truncate(end)


def schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([
        ("problem_id", pa.string()), ("index", pa.int32()), ("family", pa.string()), ("language", pa.string()),
        ("kind", pa.string()), ("outcome", pa.string()), ("reason", pa.string()), ("answer", pa.string()),
        ("judge", pa.string()), ("versions", pa.string()), ("finish", pa.string()),
        ("fault", pa.string()), ("one_language", pa.bool_()), ("n_tokens", pa.int32()), ("n_prompt", pa.int32()),
        ("n_thinking", pa.int32()), ("guessed", pa.bool_()),
    ])  # fmt: skip


def read_verdicts(path: Path) -> pa.Table:
    """verdicts.jsonl as a table, in the order of problems and indices, whatever the order of judging."""
    import pyarrow as pa
    from pyarrow import json as pa_json

    if path.stat().st_size == 0:
        return schema().empty_table()
    options = pa_json.ParseOptions(explicit_schema=schema(), unexpected_field_behavior="error")
    try:
        table = pa_json.read_json(path, pa_json.ReadOptions(block_size=1 << 24), options)
    except pa.ArrowInvalid as e:
        raise RunFolderError(f"{path} holds a line that is no verdict: {e}") from None
    return table.sort_by([("problem_id", "ascending"), ("index", "ascending")])

"""Problems from files of your own: JSONL, CSV, TSV or Parquet, plain or (but Parquet) as .gz, read row by row.

In a recipe each family is a file, or a data set of a hub (hub.py says how it is named):

    [problems]
    source = "files"
    families = [{ name = "mine", options = { path = "mine.jsonl", question = "problem", reference = "answer" } }]
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from magistral.curation.sources import hub
from magistral.curation.sources.base import SOURCES, Origin, Row
from magistral.curation.sources.reasoning_gym import apportion
from magistral.errors import RecipeError, UserError
from magistral.flow import Problem
from magistral.recipe import Family, Problems
from magistral.registry import nearest
from magistral.verifiers import VERIFIERS

ROWS_AT_ONCE = 1000
csv.field_size_limit(1 << 28)  # of the standard library's 128 kB, the tests of one code problem may take many times as much


class Layout(BaseModel):
    """Which column is what. Columns `id`, `kind`, `family` and `language` are read where there are such."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: Path
    question: str = "question"
    reference: str = "reference"
    kind: str = "math"
    """The verifier of rows that name none."""
    language: str = "en"
    """Of rows that name none."""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of one file or data set, few in memory at a time. Raises UserError naming the row that cannot be read."""
    if is_of_hub(path):
        yield from hub.rows(path)
        return
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
    if suffix not in _READERS:
        raise UserError(
            f"{path} cannot be read as problems: name a file that ends in {', '.join(_READERS)} (or with .gz after it)"
        )
    with _said_of(path):
        yield from _READERS[suffix](path)


def is_of_hub(path: Path) -> bool:
    return str(path).startswith(hub.PREFIX)


def stem_of(path: Path) -> str:
    """What rows without an id of their own are called by."""
    return hub.Place.of(path).stem if is_of_hub(path) else path.name.partition(".")[0]


def read_problems(layout: Layout, family: str = "") -> Iterator[Problem]:
    """Raises UserError naming file and line of a row without question or reference, or with an unknown verifier."""
    for ordinal, row in enumerate(read_rows(layout.path)):
        kind = _text(row, "kind") or layout.kind
        if kind not in VERIFIERS:
            raise UserError(f"{row.where}: no verifier named {kind!r}; {nearest(kind, VERIFIERS)}")
        yield Problem(
            id=_id(row, layout, family, ordinal),
            question=needed(row, layout.question), reference=needed(row, layout.reference), kind=kind,
            family=_text(row, "family") or family, language=_text(row, "language") or layout.language,
            pool=family,
        )  # fmt: skip


def origins_of(wanted: Problems) -> dict[str, Origin]:
    """By the problem's id, for rows that name a licence or a data set: read once more. Nothing of other sources."""
    found: dict[str, Origin] = {}
    for family in wanted.families if wanted.source == "files" else ():
        layout = _layout(family)
        for ordinal, row in enumerate(read_rows(layout.path)):
            origin = Origin(_text(row, "licence"), _text(row, "origin"))
            if any(origin):
                found[_id(row, layout, family.name, ordinal)] = origin
    return found


def needed(row: Row, column: str) -> str:
    """A column's value as text: a list or an object as JSON. Raises UserError where it is missing or empty."""
    if column not in row.values:
        raise UserError(f"{row.where}: no column {column!r}; {nearest(column, row.values)}")
    text = _text(row, column)
    if not text.strip():
        raise UserError(f"{row.where}: the column {column!r} is empty")
    return text


@SOURCES.register("files")
def problems(wanted: Problems) -> tuple[list[Problem], list[Problem]]:
    """Rows with equal questions count once. Which are held out depends on `seed` and the questions, not on their order."""
    shares = [family.weight for family in wanted.families]
    n_held_out, n_train = apportion(wanted.n_held_out, shares), apportion(wanted.n_train, shares)
    held_out: list[Problem] = []
    train: list[Problem] = []
    seen: dict[str, str] = {}
    ids: set[str] = set()
    for family, n_out, n_in in zip(wanted.families, n_held_out, n_train, strict=True):
        found = []
        for problem in read_problems(_layout(family), family.name):
            if problem.id in ids:
                raise RecipeError(f"problems.families: {family.name}: two problems have the id {problem.id!r}: make ids distinct")
            ids.add(problem.id)
            if seen.setdefault(problem.question, problem.id) == problem.id:
                found.append(problem)
        if len(found) < n_out + n_in:
            raise RecipeError(
                f"problems.families: {family.name!r} has {len(found)} different problems, {n_out + n_in} are asked for: "
                "lower its weight, or n_train and n_held_out"
            )
        found.sort(key=lambda p: _order(wanted.seed, p))
        held_out += found[:n_out]
        train += found[n_out : n_out + n_in]
    for part in (held_out, train):
        part.sort(key=lambda p: _order(wanted.seed, p))
    return train, held_out


def _layout(family: Family) -> Layout:
    try:
        return Layout.model_validate(family.options)
    except ValidationError as e:
        fault = e.errors()[0]
        name = str(fault["loc"][0])
        what = nearest(name, Layout.model_fields) if fault["type"] == "extra_forbidden" else fault["msg"]
        raise RecipeError(f"problems.families: {family.name}.options.{name}: {what}") from None


def _order(seed: int, problem: Problem) -> bytes:
    return hashlib.blake2b(f"{seed}/{problem.question}".encode(errors="replace"), digest_size=16).digest()


def _id(row: Row, layout: Layout, family: str, ordinal: int) -> str:
    return _text(row, "id") or f"{family or stem_of(layout.path)}-{ordinal}"


def _text(row: Row, column: str) -> str:
    value = row.values.get(column)
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:  # gzip's own faults have no strerror
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from None
    except (UnicodeDecodeError, EOFError) as e:
        raise UserError(f"{path} cannot be read: {e}") from None


def _open(path: Path) -> IO[str]:
    opened: IO[str] = (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="")
    return opened


def _jsonl(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as e:
                raise UserError(f"{where}: no JSON: {e}") from None
            if not isinstance(values, dict):
                raise UserError(f'{where}: a line is an object, as {{"question": …}}, and this is a {type(values).__name__}')
            yield Row(where, values)


def _table(path: Path, delimiter: str) -> Iterator[Row]:
    with _open(path) as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for values in reader:
                where = f"{path.name}:{reader.line_num}"
                if None in values or None in values.values():
                    raise UserError(f"{where}: not as many cells as the first line has names ({len(reader.fieldnames or ())})")
                yield Row(where, values)
        except csv.Error as e:
            raise UserError(f"{path.name}:{reader.reader.line_num}: {e}") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".gz":
        raise UserError(f"{path}: Parquet is compressed inside: unpack it first")
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=ROWS_AT_ONCE)
            for number, values in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
                yield Row(f"{path.name}, row {number}", values)
    except pa.ArrowException as e:
        raise UserError(f"{path} cannot be read as Parquet: {e}") from None


_READERS = {
    ".jsonl": _jsonl,
    ".csv": lambda path: _table(path, ","),
    ".tsv": lambda path: _table(path, "\t"),
    ".parquet": _parquet,
}

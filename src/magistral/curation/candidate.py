"""A problem on its way through the filters, and the files that candidates lie in between them: a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from magistral.curation.sources.base import Row
from magistral.curation.sources.benchmarks import BENCHMARKS, files_of, read_benchmark
from magistral.curation.sources.files import is_of_hub, read_rows, stem_of
from magistral.errors import UserError
from magistral.flow import Problem
from magistral.registry import nearest
from magistral.verifiers import VERIFIERS

UNREADABLE = "unreadable"
"""The note of a row that is no candidate: its fault. The first stage drops it."""
QUESTIONS = ("question", "problem", "prompt", "text")
"""Columns that a question is looked for in."""
REFERENCES = ("reference", "answer", "final_answer")
"""And its right answer."""


class Solution(BaseModel):
    model_config = ConfigDict(frozen=True)

    language: str
    source: str


class Candidate(BaseModel):
    """Example: Candidate(id="a-1", question="What is 2 + 2?", reference="4")"""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="ignore", populate_by_name=True)

    id: str
    question: str = Field(default="", validation_alias=AliasChoices(*QUESTIONS))
    reference: str = Field(default="", validation_alias=AliasChoices(*REFERENCES))
    kind: str = "math"
    family: str = ""
    language: str = "en"
    options: tuple[str, ...] = ()
    """Of a multiple choice, in the order of their letters, where the source gives them apart from the question."""
    solutions: tuple[Solution, ...] = ()
    """Programs that are said to solve a code problem."""
    licence: str = ""
    """Of the source."""
    origin: str = ""
    """The data set of a hub that it is from, with its commit."""
    notes: dict[str, Any] = Field(default_factory=dict)
    """What each stage found out, by the stage's name. What it changed it says under its own name, in words."""

    @field_validator("id", "reference", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """A number is text that spells it, the only one of a list is itself; tests of code are JSON."""
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        if isinstance(value, (dict, list)):
            return json.dumps(value)
        return str(value) if isinstance(value, (int, float)) else value

    @field_validator("options", "solutions", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        """A cell of a table holds a list as JSON."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"a list is wanted, in a table as JSON, and this is {value[:40]!r}") from None

    @field_validator("solutions", mode="before")
    @classmethod
    def _in_a_language(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and any(isinstance(solution, str) for solution in value):
            raise ValueError('a solution is {"language": "python", "source": "…"}, and one is a bare text')
        return value

    @field_validator("kind")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in VERIFIERS:
            raise ValueError(f"no verifier named {value!r}; {nearest(value, VERIFIERS)}")
        return value

    @property
    def flow(self) -> Problem:
        """As verifiers and engines know it."""
        return Problem(
            id=self.id,
            question=self.question,
            reference=self.reference,
            kind=self.kind,
            family=self.family,
            language=self.language,
        )

    def but(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)

    def noted(self, stage: str, what: Any) -> Self:
        return self.but(notes={**self.notes, stage: what})

    @property
    def line(self) -> str:
        return self.model_dump_json(exclude_defaults=True) + "\n"


def raw_candidates(paths: Iterable[Path]) -> Iterator[Candidate]:
    """Rows of files or data sets of a hub; one without an id is called by its file and place. A row that is no candidate has
    its fault, with file, line and id, as its note UNREADABLE.

    Raises UserError where that is so of every row of a file, and for what is no row."""
    for path in paths:
        first_fault, is_read = "", False
        for number, row in enumerate(read_rows(path), 1):
            candidate = _candidate(row, f"{stem_of(path)}-{number}")
            fault = candidate.notes.get(UNREADABLE)
            first_fault, is_read = first_fault or fault or "", is_read or fault is None
            yield candidate
        if first_fault and not is_read:
            raise UserError(first_fault)


def _candidate(row: Row, name: str) -> Candidate:
    """`name`: of one that has none. An empty cell of a table is a value that is absent."""
    values = {"id": name} | {k: v for k, v in row.values.items() if not (v is None or (isinstance(v, str) and not v.strip()))}
    try:
        return Candidate.model_validate(values)
    except ValidationError as e:
        fault = e.errors()[0]
        said = f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
        question = next((values[column] for column in QUESTIONS if isinstance(values.get(column), str)), "")
        called = str(values["id"])
        return Candidate(id=called, question=question, notes={UNREADABLE: f"{row.where}: {said} (id {called!r})"})


def read_candidates(path: Path) -> Iterator[Candidate]:
    """Of a file that a stage wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield Candidate.model_validate_json(line)


def input_files(files: Iterable[str], benchmarks: Iterable[str], data: Path) -> list[Path]:
    """Where problems and benchmarks are read from on this machine; a data set of a hub is named with its revision."""
    named = [*files, *(name for name in benchmarks if name not in BENCHMARKS)]
    known = (file for name in benchmarks if name in BENCHMARKS for file in files_of(name, data))
    return [*(path for path in map(Path, named) if not is_of_hub(path)), *known]


def benchmark_questions(names: Iterable[str], data: Path) -> Iterator[tuple[str, str, bool]]:
    """(where, question, whether it is not to be shown) of benchmarks by name, in the folder `data`, and of files.

    Raises UserError for a file whose questions have none of the names we know, and where there is no file."""
    for name in names:
        if name in BENCHMARKS:
            private = BENCHMARKS[name].private
            yield from ((f"{name} {problem.id}", problem.question, private) for problem in read_benchmark(name, data))
            continue
        for row in read_rows(Path(name)):
            column = next((name for name in QUESTIONS if row.values.get(name)), None)
            if column is None:
                raise UserError(f"{row.where}: none of the columns {', '.join(QUESTIONS)} holds a question")
            yield row.where, str(row.values[column]), False

"""A problem on its way through the filters, and the files that candidates lie in between them: a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from magistral.errors import UserError
from magistral.flow import Problem


class Solution(BaseModel):
    model_config = ConfigDict(frozen=True)

    language: str
    source: str


class Candidate(BaseModel):
    """Example: Candidate(id="a-1", question="What is 2 + 2?", reference="4")"""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="ignore", populate_by_name=True)

    id: str
    question: str = Field(default="", validation_alias=AliasChoices("question", "problem", "prompt"))
    reference: str = Field(default="", validation_alias=AliasChoices("reference", "answer"))
    kind: str = "math"
    family: str = ""
    language: str = "en"
    options: tuple[str, ...] = ()
    """Of a multiple choice, in the order of their letters, where the source gives them apart from the question."""
    solutions: tuple[Solution, ...] = ()
    """Programs that are said to solve a code problem."""
    licence: str = ""
    """Of the source."""
    notes: dict[str, Any] = Field(default_factory=dict)
    """What each stage found out, by the stage's name. What it changed it says under its own name, in words."""

    @field_validator("id", "reference", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """A number is text that spells it; tests of code are JSON."""
        if isinstance(value, (dict, list)):
            return json.dumps(value)
        return str(value) if isinstance(value, (int, float)) else value

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


def read_candidates(path: Path, *, named: str = "") -> Iterator[Candidate]:
    """One for each line that is not empty; without an id it is called `named` and the line's number.

    Raises UserError, with file and line, for what is no candidate."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _candidate(line, f"{path}:{number}", f"{named}-{number}")
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is no UTF-8 text: {e}") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None


def _candidate(line: str, where: str, name: str) -> Candidate:
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise UserError(f'{where}: a line holds an object, as {{"question": …, "reference": …}}')
        return Candidate.model_validate({"id": name, **data})
    except ValidationError as e:
        fault = e.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{where} is no JSON: {e}") from None

"""Rows of files become candidates; what is wrong with a row is said of that row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from magistral.curation.candidate import Candidate, Solution, raw_candidates
from magistral.curation.form import judged
from magistral.curation.stage import Dropped
from magistral.errors import UserError

GOOD = {"id": "good", "question": "What is 1 + 1?", "reference": "2"}


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def table(folder: Path, row: dict[str, str]) -> Path:
    file = folder / "a.csv"
    with file.open("w", newline="", encoding="utf-8") as cells:
        writer = csv.DictWriter(cells, list(row))
        writer.writeheader()
        writer.writerow(row)
    return file


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"kind": "", "language": " ", "family": ""}, {}),
        ({"id": ""}, {"id": "a-1"}),
        ({"options": '["4", "5"]'}, {"options": ("4", "5")}),
        (
            {"kind": "code", "solutions": '[{"language": "python", "source": "print(2)"}]'},
            {"kind": "code", "solutions": (Solution(language="python", source="print(2)"),)},
        ),
        ({"options": "", "solutions": ""}, {}),
    ],
    ids=["defaults", "no name", "options", "solutions", "no lists"],
)
def test_empty_cells_are_absent_and_lists_are_json(cells: dict[str, str], expected: dict[str, Any], tmp_path: Path) -> None:
    [found] = raw_candidates([table(tmp_path, GOOD | cells)])
    assert found == Candidate(**{**GOOD, **expected})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"kind": "mathh"}, "a.jsonl:2: kind: no verifier named 'mathh'; did you mean 'math'? "),
        ({"solutions": ["print(2)"]}, 'a.jsonl:2: solutions: a solution is {"language": "python", "source": "…"}'),
        ({"solutions": [{"source": "print(2)"}]}, "a.jsonl:2: solutions.0.language: Field required (id 'bad')"),
        ({"options": "4 or 5"}, "a.jsonl:2: options: a list is wanted, in a table as JSON, and this is '4 or 5' (id 'bad')"),
        ({"options": "[" * 99999}, "a.jsonl:2: options: a list is wanted"),
        ({"question": ["What?"]}, "a.jsonl:2: question: Input should be a valid string (id 'bad')"),
    ],
    ids=["unknown kind", "bare programs", "no language", "no JSON", "deep JSON", "question in a list"],
)
def test_a_bad_row_is_dropped_with_its_fault_and_the_others_stay(bad: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = [judged(c) for c in raw_candidates([jsonl(tmp_path, GOOD, {**GOOD, "id": "bad"} | bad, GOOD)])]
    assert [isinstance(c, Dropped) for c in found] == [False, True, False]
    dropped = found[1]
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "cannot be read"
    assert dropped.detail.startswith(said)
    assert dropped.candidate.id == "bad"


def test_a_file_of_nothing_but_bad_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^a\.jsonl:1: kind: no verifier named 'mth'; did you mean 'math'"):
        list(raw_candidates([jsonl(tmp_path, GOOD | {"kind": "mth"}, GOOD | {"kind": "cde"})]))

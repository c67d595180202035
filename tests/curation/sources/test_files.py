from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magistral.curation import problems
from magistral.curation.sources.files import Layout, read_problems, read_rows
from magistral.errors import MagistralError, RecipeError, UserError
from magistral.flow import Problem
from magistral.recipe import Problems

ONE_LINE = r"^[^\n]*$"
ROWS = [{"question": "1 + 1 = ?", "reference": "2"}, {"question": 'Où est\nl\'été, "ici" ?', "reference": "là, là"}]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def table(path: Path, delimiter: str) -> Path:
    cells = [list(ROWS[0]), *(['"' + value.replace('"', '""') + '"' for value in row.values()] for row in ROWS)]
    path.write_text("\r\n".join(delimiter.join(row) for row in cells), encoding="utf-8-sig", newline="")
    return path


def parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda p: written(p / "a.jsonl", ROWS),
        lambda p: written(p / "a.jsonl.gz", ROWS),
        lambda p: table(p / "a.csv", ","),
        lambda p: table(p / "a.tsv", "\t"),
        lambda p: parquet(p / "a.parquet"),
    ],
    ids=["JSONL", "packed JSONL", "CSV with a byte order mark", "TSV", "Parquet"],
)
def test_every_form_gives_the_same_problems(make: Any, tmp_path: Path) -> None:
    found = list(read_problems(Layout(path=make(tmp_path))))
    assert found == [Problem(id=f"a-{i}", question=row["question"], reference=row["reference"]) for i, row in enumerate(ROWS)]


def test_columns_of_their_own_names_go_before_the_layout_and_a_list_is_kept_as_json(tmp_path: Path) -> None:
    tests = [{"stdin": "1", "expected": "1"}]
    rows = [{"id": 7, "kind": "code", "family": "echo", "language": "fr", "task": "Répète.", "tests": tests}]
    layout = Layout(path=written(tmp_path / "a.jsonl", rows), question="task", reference="tests")
    assert list(read_problems(layout, "mine")) == [
        Problem(
            id="7", question="Répète.", reference=json.dumps(tests), kind="code", family="echo", language="fr", pool="mine"
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"question": "q", "reference": "1"}\n{"question": "q"}\n', "a.jsonl:2: no column 'reference'"),
        ("a.jsonl", '{"question": " ", "reference": "1"}\n', "a.jsonl:1: the column 'question' is empty"),
        ("a.jsonl", '\n{"question": \n', "a.jsonl:2: no JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: a line is an object"),
        ("a.jsonl", '{"question": "q", "reference": "1", "kind": "mth"}\n', "a.jsonl:1: no verifier named 'mth'; did you"),
        ("a.csv", "question,reference\nq,1\nq\n", "a.csv:3: not as many cells"),
        ("a.csv", 'question,reference\n"q,1\n', "a.csv:2: unexpected end of data"),
        ("a.parquet", "no parquet", "cannot be read as Parquet"),
        ("a.jsonl.gz", "not packed", "cannot be read"),
        ("a.txt", "q", "name a file that ends in .jsonl"),
    ],
    ids=[
        "no reference", "empty question", "broken JSON", "a list", "unknown verifier", "a cell too few", "an open quote",
        "no Parquet", "no gzip", "unknown form",
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named_with_file_and_line(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=ONE_LINE) as e:
        list(read_problems(Layout(path=tmp_path / name)))
    assert said in str(e.value)


def test_bytes_that_are_no_text_and_a_missing_file_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "\xff"}')
    for name in ("a.jsonl", "b.jsonl"):
        with pytest.raises(UserError, match="cannot be read"):
            list(read_rows(tmp_path / name))


def recipe(path: Path, **changes: Any) -> Problems:
    family = {"name": "mine", "options": {"path": str(path)} | changes.pop("options", {})}
    return Problems.model_validate({"source": "files", "n_train": 6, "n_held_out": 3, "families": [family]} | changes)


def test_a_recipe_takes_problems_of_files_and_holds_out_the_same_ones_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = [{"question": f"{i} + 1 = ?", "reference": i + 1, "id": f"n{i}"} for i in range(9)]
    train, held_out = problems(recipe(written(tmp_path / "a.jsonl", [*rows, {**rows[0], "id": "again"}])))
    assert (len(train), len(held_out)) == (6, 3)
    assert len({p.question for p in train + held_out}) == 9
    assert problems(recipe(written(tmp_path / "b.jsonl", rows[::-1]))) == (train, held_out)
    assert problems(recipe(tmp_path / "b.jsonl", seed=1)) != (train, held_out)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_train": 7}, "'mine' has 9 different problems, 10 are asked for"),
        ({"options": {"refrence": "answer"}}, "mine.options.refrence: did you mean 'reference'"),
        ({"options": {"path": 3}}, "mine.options.path"),
    ],
    ids=["too few", "unknown option", "no path"],
)
def test_what_a_recipe_cannot_have_is_said(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"question": f"{i} + 1 = ?", "reference": i + 1} for i in range(9)])
    with pytest.raises(MagistralError, match=ONE_LINE) as e:
        problems(recipe(path, **changes))
    assert said in str(e.value)


def test_two_problems_of_one_id_are_refused(tmp_path: Path) -> None:
    rows = [{"question": str(i), "reference": "1", "id": "same"} for i in range(9)]
    with pytest.raises(RecipeError, match="two problems have the id 'same'"):
        problems(recipe(written(tmp_path / "a.jsonl", rows)))

"""A curation goes on with what it was started with; only a budget may change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from magistral.cli.curate import _same_settings, command
from magistral.errors import RunFolderError, UserError
from magistral.recipe_data import Asked, Curation, Difficulty


def settings(*, budget: float, too_easy: float = 0.9) -> Curation:
    first = Asked(model="a", max_tokens=10, price_in=1, price_out=1, budget=budget)
    return Curation(files=("raw.jsonl",), difficulty=Difficulty(first=first, too_easy=too_easy))


def test_a_budget_may_be_raised(tmp_path: Path) -> None:
    _same_settings(tmp_path, settings(budget=1), {}, resume=False)
    _same_settings(tmp_path, settings(budget=2), {}, resume=True)


def test_another_threshold_needs_another_folder(tmp_path: Path) -> None:
    _same_settings(tmp_path, settings(budget=1), {}, resume=False)
    with pytest.raises(RunFolderError, match="was started with other settings"):
        _same_settings(tmp_path, settings(budget=1, too_easy=0.8), {}, resume=True)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(RunFolderError, match="exists and holds no curation"):
        _same_settings(tmp_path, settings(budget=1), {}, resume=False)


ROOT = Path(__file__).parents[2]
CURATED = """
[curation]
files = ["raw.jsonl"]
benchmarks = ["aime24", "known.jsonl"]
data = "data"
"""


def row(file: Path, question: str) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    line = {"id": "a", "question": question, "problem": question, "answer": "4"}
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "set_", "said"),
    [
        (lambda f: None, [], ""),
        (lambda f: None, ["seed=99"], "seed"),
        (lambda f: None, ['prompt.system="Think."'], "[prompt]"),
        (lambda f: row(f / "raw.jsonl", "What is 2 + 3?"), [], "raw.jsonl"),
        (lambda f: row(f / "known.jsonl", "What is 9 + 3?"), [], "known.jsonl"),
        (lambda f: row(f / "data" / "aime24" / "test.jsonl", "What is 9 + 3?"), ["seed=99"], "data/aime24/test.jsonl, seed"),
    ],
    ids=["nothing", "seed", "prompt", "problems", "a benchmark's file", "a benchmark by name"],
)
def test_what_changed_since_the_start_is_named(
    change: Callable[[Path], None], set_: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text((ROOT / "recipes" / "nano.toml").read_text(encoding="utf-8") + CURATED, encoding="utf-8")
    for name in ("raw.jsonl", "known.jsonl", "data/aime24/test.jsonl"):
        row(tmp_path / name, f"How many letters has the name {name}?")
    command(recipe, Path("out"))
    change(tmp_path)
    if not said:
        command(recipe, Path("out"), resume=True, set_=set_)
        return
    with pytest.raises(RunFolderError, match=f"^out was started with something else as {re.escape(said)}: put that back"):
        command(recipe, Path("out"), resume=True, set_=set_)


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    (tmp_path / "curation.json").write_text(settings(budget=1).model_dump_json())
    _same_settings(tmp_path, settings(budget=1), {"seed": 1}, resume=True)


def test_nothing_is_written_where_the_problems_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^raw\.jsonl cannot be read: No such file or directory$"):
        command(Path("raw.jsonl"), Path("out"))
    assert not (tmp_path / "out").exists()

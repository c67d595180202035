"""A curation goes on with what it was started with; only a budget may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from magistral.cli.curate import _same_settings
from magistral.errors import RunFolderError
from magistral.recipe_data import Asked, Curation, Difficulty


def settings(*, budget: float, too_easy: float = 0.9) -> Curation:
    first = Asked(model="a", max_tokens=10, price_in=1, price_out=1, budget=budget)
    return Curation(files=("raw.jsonl",), difficulty=Difficulty(first=first, too_easy=too_easy))


def test_a_budget_may_be_raised(tmp_path: Path) -> None:
    _same_settings(tmp_path, settings(budget=1), resume=False)
    _same_settings(tmp_path, settings(budget=2), resume=True)


def test_another_threshold_needs_another_folder(tmp_path: Path) -> None:
    _same_settings(tmp_path, settings(budget=1), resume=False)
    with pytest.raises(RunFolderError, match="was started with other settings"):
        _same_settings(tmp_path, settings(budget=1, too_easy=0.8), resume=True)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(RunFolderError, match="exists and holds no curation"):
        _same_settings(tmp_path, settings(budget=1), resume=False)

"""docs/curation.md shows sections that a recipe may have, and names every stage."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from magistral.curation.curate import stages_of
from magistral.errors import UserError
from magistral.recipe import Recipe
from magistral.recipe_data import Asked, Curation, Difficulty, Programs, Translation
from tests.curation.planted import Planted, planted_hands

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "curation.md").read_text(encoding="utf-8")
BLOCKS = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: next(iter(block)))
def test_each_section_is_one_of_a_recipe(block: dict[str, object]) -> None:
    whole = tomllib.loads((ROOT / "recipes" / "nano.toml").read_text(encoding="utf-8")) | block
    Recipe.model_validate(whole)


def test_every_stage_is_in_the_document(tmp_path: Path) -> None:
    asked = Asked(model="a", max_tokens=10)
    settings = Curation(
        benchmarks=("none",), difficulty=Difficulty(first=asked, grader=asked), tests=Programs(writer=asked),
        translation=Translation(translator=asked),
    )  # fmt: skip
    with planted_hands(Planted()) as hands:
        with pytest.raises(UserError, match="none"):  # a benchmark that is not there is told before anything starts
            stages_of(settings, tmp_path, hands)
        names = [stage.name for stage in stages_of(settings.model_copy(update={"benchmarks": ()}), tmp_path, hands)]
    assert [name for name in [*names, "benchmarks", "difficulty"] if f"`{name}`" not in DOCUMENT] == []

"""What a source is, the names by which recipes ask for one, and the rows that problems are read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from magistral.flow import Problem
from magistral.recipe import Problems
from magistral.registry import Registry


class Row(NamedTuple):
    where: str
    """Example: "mine.jsonl:17"; of a Parquet file "mine.parquet, row 17"."""
    values: Mapping[str, Any]


class Origin(NamedTuple):
    """Where a problem is from. Example: Origin("MIT", "owner/name@0123abc")"""

    licence: str = ""
    data_set: str = ""


class Source(Protocol):
    def __call__(self, wanted: Problems, /) -> tuple[list[Problem], list[Problem]]:
        """Exactly `n_train` problems to train on and `n_held_out` others, all questions distinct.

        The same `wanted` gives the same problems in the same order. Raises RecipeError where it cannot give as many."""


SOURCES = Registry[Source]("source of problems")

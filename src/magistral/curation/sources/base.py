"""What a source is, and the names by which recipes ask for one."""

from __future__ import annotations

from typing import Protocol

from magistral.flow import Problem
from magistral.recipe import Problems
from magistral.registry import Registry


class Source(Protocol):
    def __call__(self, wanted: Problems, /) -> tuple[list[Problem], list[Problem]]:
        """Exactly `n_train` problems to train on and `n_held_out` others, all questions distinct.

        The same `wanted` gives the same problems in the same order. Raises RecipeError where it cannot give as many."""


SOURCES = Registry[Source]("source of problems")

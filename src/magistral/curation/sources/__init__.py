"""Where problems come from: one file a source, registered by name."""

from __future__ import annotations

from magistral.curation.sources import files, reasoning_gym
from magistral.curation.sources.base import SOURCES, Source
from magistral.flow import Problem
from magistral.recipe import Problems

__all__ = ["SOURCES", "Source", "files", "problems", "reasoning_gym"]


def problems(wanted: Problems) -> tuple[list[Problem], list[Problem]]:
    """The recipe's problems: to train on, and held out. Raises UnknownName for a source that is not there."""
    return SOURCES[wanted.source](wanted)

"""Problems worth training on, where they come from, and worked solutions to begin with."""

from magistral.curation.sources import SOURCES, problems
from magistral.curation.worked import worked

__all__ = ["SOURCES", "problems", "worked"]

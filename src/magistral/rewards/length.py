"""Length: a soft penalty before the hard limit (arXiv 2506.10910, equation of section 2.2.3; DAPO's form)."""

from __future__ import annotations


def length_penalty(n_tokens: int, *, l_max: int, l_cache: int, most: float = 0.1) -> float:
    """0 up to l_max - l_cache, then falling in a straight line to -most at l_max and beyond."""
    over = n_tokens - (l_max - l_cache)
    return -most * min(max(over / l_cache, 0.0), 1.0) + 0.0

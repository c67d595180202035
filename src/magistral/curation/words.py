"""A question as words, for telling whether two are one: words, numbers and operators in one spelling, nothing else."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\\[a-zA-Z]+|[^\W\d_]+|\d+(?:[.,]\d+)*|[-+*/^=<>!|]")
_SPACING = frozenset(("\\left", "\\right", "\\displaystyle", "\\quad", "\\qquad", "\\text", "\\mathrm"))
_IDEOGRAPHS = re.compile("([\u3040-\u30ff\u3400-\u9fff])")


def words_of(text: str) -> list[str]:
    """Example: words_of(r"What is $\\dfrac{1}{2}$?") == ["what", "is", "\\\\frac", "1", "2"]. An ideograph is a word."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.replace("\u2212", "-").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return [word for word in _WORD.findall(_IDEOGRAPHS.sub(r" \1 ", text)) if word not in _SPACING]


def runs_of(words: list[str], n: int) -> set[str]:
    """All runs of `n` words that follow on each other; all words as one run where there are fewer."""
    return {" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def numbers_of(words: list[str]) -> list[str]:
    return sorted(word for word in words if word[0].isdigit())

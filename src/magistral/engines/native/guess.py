"""Guessing what comes next from what was said before: after the last few tokens comes what came after them earlier.

A guess costs a place in a step. It is kept only where it is the token that would have been drawn there, so that guessing changes
no distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

N_ALIKE = 3
"""Tokens that must be the same before a guess is made (chosen: two are too often followed by something else)."""


class Guesser:
    """`prediction` is guessed from first, then the prompt and what was written."""

    def __init__(self, n_prompt: int, prediction: Sequence[int]) -> None:
        self._n_prompt, self._prediction = n_prompt, prediction
        self._predicted = dict(_grams(prediction, 0))
        self._said: dict[tuple[int, ...], int] = {}
        self._n_read = 0

    def guess(self, tokens: Sequence[int], n: int) -> list[int]:
        """At most `n` tokens that may follow `tokens`: the prompt and what was written, which only grow."""
        self._said.update(_grams(tokens, self._n_read))
        self._n_read = max(self._n_read, len(tokens) - N_ALIKE)
        if len(tokens) == self._n_prompt:
            return list(self._prediction[:n])
        last = tuple(tokens[-N_ALIKE:])
        if (place := self._predicted.get(last)) is not None:
            return list(self._prediction[place : place + n])
        place = self._said.get(last, len(tokens))
        return list(tokens[place : place + n])


def _grams(tokens: Sequence[int], start: int) -> list[tuple[tuple[int, ...], int]]:
    """Every N_ALIKE tokens from `start` on that something follows, with the place of what does."""
    return [(tuple(tokens[i : i + N_ALIKE]), i + N_ALIKE) for i in range(start, len(tokens) - N_ALIKE)]

"""What one row computes in a step, and which of them go through the model together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from magistral.engines.native.cache import Span
from magistral.engines.native.row import Row

PASS = 1024
"""Tokens that go through the model at once, where they are of several rows (chosen: with four times as many a token took twice as
long, since what is between two products no longer stays in the processor's cache)."""


class Piece(NamedTuple):
    """What one row computes in a step."""

    row: Row
    span: Span
    tokens: list[int]
    ahead: list[int]
    """The last of `tokens`, which are not yet said: told, or guessed."""

    n_drawn: int
    """The last so many places say what comes next: none, where there is more to read."""


def next_piece(slot: int, row: Row, n: int) -> Piece:
    """The next `n` tokens of a row, and what is ahead of them where they are its last."""
    last = n == row.n_behind
    ahead = row.ahead() if last else []
    tokens = [*row.tokens[row.n_held : row.n_held + n], *ahead]
    return Piece(row, Span(slot, row.n_held, len(tokens)), tokens, ahead, len(ahead) + 1 if last else 0)


def passes(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Those of a step that go through the model together."""
    part: list[Piece] = []
    n = 0
    for piece in pieces:
        if part and n + piece.span.n > PASS:
            yield part
            part, n = [], 0
        part.append(piece)
        n += piece.span.n
    if part:
        yield part

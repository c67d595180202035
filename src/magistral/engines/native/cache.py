"""Keys and values of the completions being written: a rectangle of rows and places within a budget, rows 0..n-1 in use.

A rectangle and not pages: completions of a batch are of like length, and on a CPU gathering pages would copy every key in every
step. Where one completion is much longer than the rest, fewer fit at once, and the youngest wait.
Shape letters as in models/transformer.py; R rows, C places of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magistral.engines.native.prefixes import Block
from magistral.models.sizes import Sizes

GROWTH = 64
"""Places added at least (chosen: a row's copy costs less than a decode step)."""


def place_bytes(sizes: Sizes) -> int:
    """Keys and values of one token."""
    return 2 * sizes.n_layers * sizes.n_kv_heads * sizes.head_dim * 4


def grown(n_places: int) -> int:
    """Places that a row is given where it needs so many."""
    return -(-n_places // GROWTH) * GROWTH


class Cache:
    def __init__(self, sizes: Sizes, n_rows: int, n_places: int, *, device: torch.device) -> None:
        """At most `n_rows` rows, and `n_places` in all of them together."""
        self.n_rows, self.n_places = n_rows, n_places
        shape = (sizes.n_layers, 0, sizes.n_kv_heads, 0, sizes.head_dim)
        self.keys, self.values = torch.empty(shape, device=device), torch.empty(shape, device=device)

    def room(self, n_places: int) -> int:
        """Rows of so many places that the budget allows."""
        return min(self.n_rows, self.n_places // grown(n_places))

    def reserve(self, n_rows: int, n_places: int) -> None:
        """Have so many rows and places in each; what is held stays."""
        _, rows, _, places, _ = self.keys.shape
        if n_rows <= rows and n_places <= places:
            return
        ample = grown(n_places + n_places // 4)
        new = ample if self.room(ample) >= n_rows else grown(n_places)
        self.keys, self.values = (self._reshaped(x, self.room(new), new) for x in (self.keys, self.values))

    def _reshaped(self, old: Tensor, n_rows: int, n_places: int) -> Tensor:
        layers, rows, heads, places, dim = old.shape
        new = old.new_zeros((layers, n_rows, heads, n_places, dim))  # what is beyond a row counts 0 times, which NaN would not
        rows, places = min(rows, n_rows), min(places, n_places)
        new[:, :rows, :, :places] = old[:, :rows, :, :places]
        return new

    def fill(self, row: int, blocks: Sequence[Block]) -> int:
        """Put kept blocks at a row's beginning; returns the places that they fill."""
        start = 0
        for block in blocks:
            end = start + block.keys.shape[2]
            self.keys[:, row, :, start:end], self.values[:, row, :, start:end] = block.keys, block.values
            start = end
        return start

    def move(self, source: int, target: int, n: int) -> None:
        """The first `n` places of a row into another."""
        for x in (self.keys, self.values):
            x[:, target, :, :n] = x[:, source, :, :n]


class Span(NamedTuple):
    """Tokens of one row that a step computes, in their order."""

    row: int
    start: int
    """The place of the first: what the row holds already."""
    n: int

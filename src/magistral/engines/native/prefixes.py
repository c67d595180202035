"""Keys and values of prompts that were read, kept for later requests that begin alike: a tree of blocks of tokens."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

BLOCK = 32
"""Tokens of a block (chosen: what is shared up to the middle of a block is computed again)."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    name: int
    keys: Tensor
    """[layers, K, n, D]"""
    values: Tensor


class Prefixes:
    """Of one version of the weights. What was used longest ago goes first where the room is used up."""

    def __init__(self, n_places: int) -> None:
        self.n_places = n_places
        self.n_held = 0
        self._blocks: OrderedDict[tuple[int, tuple[int, ...]], Block] = OrderedDict()
        """By the name of the block before it (0: none) and its own tokens."""
        self._names = itertools.count(1)

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, tokens: Sequence[int]) -> list[Block]:
        """The longest beginning of `tokens` that is held."""
        found: list[Block] = []
        keys = []
        for part in _cut(tokens):
            key = (found[-1].name if found else 0, part)
            block = self._blocks.get(key)
            if block is None:
                break
            found.append(block)
            keys.append(key)
        for key in reversed(keys):  # a block's followers go before it
            self._blocks.move_to_end(key)
        return found

    def put(self, tokens: Sequence[int], keys: Tensor, values: Tensor) -> None:
        """`keys`, `values`: [layers, K, n or more, D] of these tokens."""
        if len(tokens) > self.n_places:
            return
        before, start = 0, 0
        for part in _cut(tokens):
            key = (before, part)
            if key not in self._blocks:
                here = slice(start, start + len(part))
                self._blocks[key] = Block(next(self._names), keys[:, :, here].clone(), values[:, :, here].clone())
                self.n_held += len(part)
            before, start = self._blocks[key].name, start + len(part)
        self.get(tokens)  # used just now
        while self.n_held > self.n_places:
            (_, part), _ = self._blocks.popitem(last=False)
            self.n_held -= len(part)

    def clear(self) -> None:
        self._blocks.clear()
        self.n_held = 0


def n_alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens with which both begin."""
    n = min(len(one), len(other))
    for start in range(0, n, BLOCK):  # by blocks, since one by one takes ten times as long
        end = min(n, start + BLOCK)
        if one[start:end] != other[start:end]:
            return next(i for i in range(start, end) if one[i] != other[i])
    return n


def _cut(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + BLOCK]) for i in range(0, len(tokens), BLOCK)]

"""Sequences into micro-batches of at most so many tokens, without padding.

Greedy, as Magistral has it (arXiv 2506.10910, section 3): longest first, each into a micro-batch with room, else into a new
one. Departure: a micro-batch is a prefix tree, laid out in a single row. What several of its sequences begin with (the system
prompt, a group's prompt, the first lines of thinking that are alike) is computed once, and the mask shows each token its own
ancestors. So a sequence goes where it adds the fewest tokens, and the loss is what it would be without sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One sequence to learn from."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    weight: float
    """What one of its tokens counts in the loss."""
    advantage: float = 0.0
    logprobs: tuple[float, ...] | None = None
    """[T] what the generator recorded; None in supervised steps."""
    gaps: tuple[int, ...] = ()
    """[T] how many versions older than those of now the weights were that wrote each token; empty: none."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """T tokens in one row; S of them have a next one; N are to be predicted, a shared one as often as it is shared."""

    tokens_T: Int[Tensor, " T"]
    positions_T: Int[Tensor, " T"]
    mask_TT: Bool[Tensor, "T T"]
    """True: row may look at column."""
    source_S: Int[Tensor, " S"]
    """Places in T whose hidden states predict."""
    row_N: Int[Tensor, " N"]
    """Place in S that predicts the target."""
    target_N: Int[Tensor, " N"]
    sampled_logp_N: Float[Tensor, " N"]
    advantage_N: Float[Tensor, " N"]
    weight_N: Float[Tensor, " N"]
    gap_N: Float[Tensor, " N"]
    """As `Item.gaps`."""
    older_N: Float[Tensor, " N"]
    """The largest gap among the tokens before it: over its own where its keys and values are of older weights."""

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def collate(items: Sequence[Item], limit: int, *, share: tuple[int, int] = (0, 1)) -> list[MicroBatch]:
    """A single sequence over `limit` gets a micro-batch of its own.

    `share`: rank and number of ranks that take them in turn, the largest first, so that all have equal work: as many (the last
    may be of one token and teach nothing), and at each turn of about one size. The paper deals sequences out, by a permutation;
    dealing micro-batches makes the sum over ranks that of one rank."""
    trees: list[_Tree] = []
    for item in sorted(items, key=lambda i: len(i.tokens), reverse=True):  # stable: equal lengths keep their order
        with_room = [(cost, tree) for tree in trees if len(tree.tokens) + (cost := tree.cost(item)) <= limit]
        if with_room:
            min(with_room, key=lambda c: c[0])[1].add(item)  # of equal ones the first
        else:
            trees.append(_Tree())
            trees[-1].add(item)
    rank, n_ranks = share
    trees += [_Tree.of_nothing() for _ in range(-len(trees) % n_ranks)]
    trees.sort(key=lambda tree: len(tree.tokens), reverse=True)
    return [tree.micro_batch() for tree in trees[rank::n_ranks]]


class _Tree:
    """Places are numbered as they come, so a parent lies before its children. A sequence's last token predicts nothing and
    is not laid down."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        """Place of the token before; -1 at a beginning."""
        self.items: list[Item] = []
        self.paths: list[list[int]] = []
        """Of each item, its places."""
        self._children: dict[tuple[int, int], int] = {}
        """(parent, token) to place."""

    @classmethod
    def of_nothing(cls) -> _Tree:
        """A place that predicts nothing, for a rank that must not leave the others waiting."""
        tree = cls()
        tree.tokens, tree.parents = [0], [-1]
        return tree

    def cost(self, item: Item) -> int:
        """Tokens that it would add."""
        inputs = _inputs(item)
        return len(inputs) - len(self._known(inputs))

    def add(self, item: Item) -> None:
        inputs = _inputs(item)
        path = self._known(inputs)
        for token in inputs[len(path) :]:
            parent, place = (path[-1] if path else -1), len(self.tokens)
            self._children[parent, token] = place
            self.tokens.append(token)
            self.parents.append(parent)
            path.append(place)
        self.items.append(item)
        self.paths.append(path)

    def _known(self, inputs: Sequence[int]) -> list[int]:
        """Places of what the tree already holds of it."""
        path: list[int] = []
        for token in inputs:
            place = self._children.get((path[-1] if path else -1, token))
            if place is None:
                break
            path.append(place)
        return path

    def micro_batch(self) -> MicroBatch:
        n = len(self.tokens)
        mask, positions = np.zeros((n, n), dtype=bool), np.zeros(n, dtype=np.int64)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                mask[place] = mask[parent]
                positions[place] = positions[parent] + 1
            mask[place, place] = True
        sources = [place for item, path in zip(self.items, self.paths, strict=True) for place in path[len(item.prompt) - 1 :]]
        unique, row = np.unique(np.array(sources, dtype=np.int64), return_inverse=True)
        return MicroBatch(
            tokens_T=torch.tensor(self.tokens),
            positions_T=torch.from_numpy(positions),
            mask_TT=torch.from_numpy(mask),
            source_S=torch.from_numpy(unique),
            row_N=torch.from_numpy(row),
            target_N=torch.tensor([t for i in self.items for t in i.tokens], dtype=torch.int64),
            sampled_logp_N=self._per_token(lambda i: i.logprobs if i.logprobs is not None else [0.0] * len(i.tokens)),
            advantage_N=self._per_token(lambda i: [i.advantage] * len(i.tokens)),
            weight_N=self._per_token(lambda i: [i.weight] * len(i.tokens)),
            gap_N=self._per_token(_gaps),
            older_N=self._per_token(
                lambda i: [_gaps(i)[0]] * len(i.tokens)
            ),  # versions never fall, so the first gap is the largest
        )

    def _per_token(self, value: Callable[[Item], Sequence[float]]) -> Tensor:
        return torch.tensor([v for i in self.items for v in value(i)], dtype=torch.float32)


def _inputs(item: Item) -> tuple[int, ...]:
    return item.prompt + item.tokens[:-1]


def _gaps(item: Item) -> Sequence[int]:
    return item.gaps or (0,) * len(item.tokens)

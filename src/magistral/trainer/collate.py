"""Sequences into micro-batches of at most so many tokens, without padding.

Greedy, as Magistral has it (arXiv 2506.10910, section 3): longest first, each into the first micro-batch with room, else
into a new one. Departure: sequences of one micro-batch lie side by side in a single row, kept apart by the mask, and a
prompt that several of them share is computed once there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class _Bin:
    n_tokens: int = 0
    by_prompt: dict[tuple[int, ...], list[Item]] = field(default_factory=dict)

    def cost(self, item: Item) -> int:
        return len(item.tokens) + (0 if item.prompt in self.by_prompt else len(item.prompt))

    def add(self, item: Item) -> None:
        self.n_tokens += self.cost(item)
        self.by_prompt.setdefault(item.prompt, []).append(item)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """T tokens in one row, of which N are to be predicted."""

    tokens_T: Int[Tensor, " T"]
    positions_T: Int[Tensor, " T"]
    mask_TT: Bool[Tensor, "T T"]
    """True: row may look at column."""
    source_N: Int[Tensor, " N"]
    """Place in T whose hidden state predicts the target."""
    target_N: Int[Tensor, " N"]
    sampled_logp_N: Float[Tensor, " N"]
    advantage_N: Float[Tensor, " N"]
    weight_N: Float[Tensor, " N"]


def collate(items: Sequence[Item], limit: int) -> list[MicroBatch]:
    """A single sequence over `limit` gets a micro-batch of its own."""
    bins: list[_Bin] = []
    for item in sorted(items, key=lambda i: len(i.tokens), reverse=True):  # stable: equal lengths keep their order
        # a bin that holds the prompt is cheaper, so it comes first
        ordered = sorted(bins, key=lambda b: item.prompt not in b.by_prompt)
        target = next((b for b in ordered if b.n_tokens + b.cost(item) <= limit), None)
        if target is None:
            target = _Bin()
            bins.append(target)
        target.add(item)
    return [_pack(b) for b in bins]


def _pack(contents: _Bin) -> MicroBatch:
    tokens: list[int] = []
    positions: list[int] = []
    prompt_of: list[int] = []
    """Which prompt a token belongs to."""
    branch: list[int] = []
    """0 in a prompt, else the number of its completion."""
    source: list[int] = []
    items: list[Item] = []
    for p, (prompt, group) in enumerate(contents.by_prompt.items()):
        last_of_prompt = len(tokens) + len(prompt) - 1
        _extend((tokens, positions, prompt_of, branch), prompt, 0, p, 0)
        for item in group:
            items.append(item)
            start = len(tokens)
            source += [last_of_prompt, *range(start, start + len(item.tokens) - 1)]
            _extend((tokens, positions, prompt_of, branch), item.tokens, len(prompt), p, len(items))
    p_T, b_T = torch.tensor(prompt_of), torch.tensor(branch)
    same = (p_T[:, None] == p_T) & ((b_T == 0) | (b_T[:, None] == b_T))

    def per_token(value: Callable[[Item], Sequence[float]]) -> Tensor:
        return torch.tensor([v for i in items for v in value(i)], dtype=torch.float32)

    return MicroBatch(
        tokens_T=torch.tensor(tokens),
        positions_T=torch.tensor(positions),
        mask_TT=same.tril(),
        source_N=torch.tensor(source),
        target_N=torch.tensor([t for i in items for t in i.tokens]),
        sampled_logp_N=per_token(lambda i: i.logprobs if i.logprobs is not None else [0.0] * len(i.tokens)),
        advantage_N=per_token(lambda i: [i.advantage] * len(i.tokens)),
        weight_N=per_token(lambda i: [i.weight] * len(i.tokens)),
    )


def _extend(columns: tuple[list[int], ...], ids: tuple[int, ...], first_position: int, prompt: int, branch: int) -> None:
    n = len(ids)
    for column, values in zip(columns, (ids, range(first_position, first_position + n), [prompt] * n, [branch] * n), strict=True):
        column.extend(values)

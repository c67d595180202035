"""Keys and values of the completions being written: a rectangle of rows and places within a budget, rows 0..n-1 in use.

A rectangle and not pages: completions of a batch are of like length, and on a CPU gathering pages would copy every key in every
step. Where one completion is much longer than the rest, fewer fit at once, and the youngest wait.
Shape letters as in models/transformer.py; N tokens of a step, R rows, C places of a row, S rows with one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
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


class Ragged:
    """Attention of a step's tokens, laid end to end without padding [1, N]: each over what its row holds, itself included.

    Rows with one token by batched matrix products over groups of heads, on a CPU faster than scaled_dot_product_attention at one
    query a row; rows with several (prompts, guesses) one after another."""

    def __init__(self, cache: Cache, spans: Sequence[Span]) -> None:
        self.cache = cache
        device = cache.keys.device
        ends = [0]
        for span in spans:
            ends.append(ends[-1] + span.n)
        self.positions = torch.tensor([p for s in spans for p in range(s.start, s.start + s.n)], device=device)
        self.rows = torch.tensor([s.row for s in spans for _ in range(s.n)], device=device)
        _, _, K, C, _ = cache.keys.shape
        heads = torch.arange(K, device=device)[:, None]
        self.at_KN = ((self.rows * K + heads) * C + self.positions).flatten()
        """Of each head's keys of each token, the line in a layer's cache."""
        self.many = [(slice(a, a + s.n), s, _causal(s, device)) for a, s in zip(ends, spans, strict=False) if s.n > 1]
        single = [(a, s) for a, s in zip(ends, spans, strict=False) if s.n == 1]
        self.n_keys = max((s.start + 1 for _, s in single), default=0)
        self.all_single = [s.row for _, s in single] == list(range(len(spans)))
        """The usual step: a view of the cache will do."""
        self.single = torch.tensor([a for a, _ in single], dtype=torch.long, device=device)
        places = self.positions[self.single]
        beyond = torch.arange(self.n_keys, device=device) > places[:, None]
        bias_SL = torch.zeros(beyond.shape, device=device).masked_fill_(beyond, float("-inf"))
        self.bias_S1L = bias_SL.repeat_interleave(K, 0)[:, None]
        """S here for each row and each of its heads with keys."""

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        for held, new in ((keys, k_BKTD), (values, v_BKTD)):
            held.view(-1, held.shape[-1]).index_copy_(0, self.at_KN, new.reshape(-1, held.shape[-1]))
        q_NHD = q_BHTD[0].transpose(0, 1)
        if self.all_single:
            n = len(self.single)
            return self._one_each(q_NHD, keys[:n], values[:n]).transpose(0, 1)[None]
        out_NHD = torch.empty_like(q_NHD)
        if len(self.single):
            rows = self.rows[self.single]
            out_NHD[self.single] = self._one_each(q_NHD[self.single], keys[rows], values[rows])
        repeats = q_BHTD.shape[1] // k_BKTD.shape[1]
        for at, span, mask in self.many:
            length = span.start + span.n
            k, v = (x[span.row, None, :, :length].repeat_interleave(repeats, dim=1) for x in (keys, values))
            out = F.scaled_dot_product_attention(q_BHTD[:, :, at], k, v, attn_mask=mask, is_causal=mask is None)
            out_NHD[at] = out[0].transpose(0, 1)
        return out_NHD.transpose(0, 1)[None]

    def _one_each(self, q_SHD: Tensor, keys_SKCD: Tensor, values_SKCD: Tensor) -> Tensor:
        S, H, D = q_SHD.shape
        K = keys_SKCD.shape[1]
        k, v = (x.view(S * K, -1, D)[:, : self.n_keys] for x in (keys_SKCD, values_SKCD))
        q = q_SHD.reshape(S * K, H // K, D)
        weights = torch.baddbmm(self.bias_S1L, q, k.transpose(1, 2), alpha=D**-0.5).softmax(-1)
        return torch.bmm(weights, v).view(S, H, D)


def _causal(span: Span, device: torch.device) -> Tensor | None:
    """[T, L] which keys each token of the span may look at; None: the span is the row's beginning."""
    if span.start == 0:
        return None
    places = torch.arange(span.start, span.start + span.n, device=device)
    return torch.arange(span.start + span.n, device=device) <= places[:, None]

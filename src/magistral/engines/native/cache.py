"""Keys and values of the completions being written: one row each, rows 0..n-1 in use, grown as sequences grow.

Shape letters as in models/transformer.py; R rows, C places of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from magistral.models.sizes import Sizes
from magistral.models.transformer import Masked

GROWTH = 64
"""Places added at once (chosen: a row's copy costs less than a decode step)."""


class Cache:
    def __init__(self, sizes: Sizes, n_rows: int, *, device: torch.device) -> None:
        shape = (sizes.n_layers, n_rows, sizes.n_kv_heads, 0, sizes.head_dim)
        self.keys = torch.empty(shape, device=device)
        self.values = torch.empty(shape, device=device)
        self.lengths = torch.zeros(n_rows, dtype=torch.long, device=device)
        """[R] tokens held of each row."""

    def reserve(self, n_places: int) -> None:
        have = self.keys.shape[3]
        if n_places > have:
            extra = -(-(n_places - have) // GROWTH) * GROWTH
            pad = (0, 0, 0, extra)
            self.keys, self.values = (torch.nn.functional.pad(x, pad) for x in (self.keys, self.values))

    def move(self, source: int, target: int) -> None:
        n = int(self.lengths[source])
        self.keys[:, target, :, :n] = self.keys[:, source, :, :n]
        self.values[:, target, :, :n] = self.values[:, source, :, :n]
        self.lengths[target] = n


class Prefill(Masked):
    """Attention inside the new prompts [R', K, T, D], stored for the rows that share each: a group's prompt is computed once."""

    def __init__(self, cache: Cache, rows: slice, prompt_of_row: Tensor) -> None:
        super().__init__()
        self.cache, self.rows, self.prompt_of_row = cache, rows, prompt_of_row

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        n = k_BKTD.shape[2]
        self.cache.keys[layer, self.rows, :, :n] = k_BKTD[self.prompt_of_row]
        self.cache.values[layer, self.rows, :, :n] = v_BKTD[self.prompt_of_row]
        return super().attend(layer, q_BHTD, k_BKTD, v_BKTD)


class Decode:
    """One new token a row, over all that the row holds. Batched matrix products by group of heads: on a CPU faster than
    scaled_dot_product_attention at one query a row."""

    def __init__(self, cache: Cache, n_rows: int) -> None:
        self.cache, self.n = cache, n_rows
        self.places = cache.lengths[:n_rows]
        self.n_keys = int(self.places.max()) + 1
        beyond = torch.arange(self.n_keys, device=self.places.device) > self.places[:, None]
        self.bias_B1L = torch.zeros(beyond.shape, device=beyond.device).masked_fill_(beyond, float("-inf"))[:, None]
        self.rows = torch.arange(n_rows, device=self.places.device)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        B, H, _, D = q_BHTD.shape
        K = k_BKTD.shape[1]
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.rows, :, self.places] = k_BKTD[:, :, 0]
        values[self.rows, :, self.places] = v_BKTD[:, :, 0]
        k, v = (x[:B].view(B * K, -1, D)[:, : self.n_keys] for x in (keys, values))
        scores = torch.bmm(q_BHTD.reshape(B * K, H // K, D) * D**-0.5, k.transpose(1, 2)).view(B, H, -1)
        weights = (scores + self.bias_B1L).softmax(-1).view(B * K, H // K, -1)
        return torch.bmm(weights, v).view(B, H, 1, D)

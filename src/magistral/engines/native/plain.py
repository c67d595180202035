"""The model off the CPU: a copy of the `Transformer` itself, over the engine's cache.

Shape letters as in models/transformer.py; N tokens of a step, S rows with one token, C places of a row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from magistral.engines.native.cache import Cache, Span
from magistral.engines.native.quick import causal
from magistral.models.transformer import Transformer


class Plain:
    def __init__(self, model: Transformer) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()  # noqa: FBT003
        self.device = model.embed_tokens.weight.device

    def prepare(self, weights: Mapping[str, Tensor]) -> Callable[[], None]:
        """Nothing: what it returns copies them in."""

        def switch() -> None:
            for name, weight in weights.items():
                self.model.get_parameter(name).copy_(weight)

        return switch

    def logits(self, tokens: Sequence[int], spans: Sequence[Span], cache: Cache, wanted: Sequence[int]) -> Tensor:
        """[B, V] at the `wanted` of a step's tokens; all of them go into the cache."""
        context = Ragged(cache, spans)
        hidden: Tensor = self.model(torch.tensor([tokens], device=self.device), context.positions[None], context)[0]
        out: Tensor = self.model.lm_head(hidden[torch.tensor(wanted, dtype=torch.long, device=self.device)])
        return out


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
        self.many = [(slice(a, a + s.n), s, causal(s, device)) for a, s in zip(ends, spans, strict=False) if s.n > 1]
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

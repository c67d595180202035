"""The model on a CPU: the numbers of a `Transformer`, packed (see packed.py), and its layers in four products and four passes
between them. The definition is models/transformer.py; tests hold this to it.

    x += attention's part -> normalise -> queries, keys, values -> turn, store -> attend -> out
    x += feed-forward's part -> normalise -> gate and up -> gated -> down

Shape letters as in native/kernels.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from magistral.engines.native import kernels
from magistral.engines.native.cache import Cache, Span
from magistral.engines.native.linears import Form
from magistral.engines.native.packed import Array, Packer
from magistral.engines.native.smooth import factors_of
from magistral.models.transformer import Transformer

SHORT = 8
"""Tokens of one row up to which each attends by itself (chosen: more than are guessed ahead; a prompt's go together)."""


class Quick:
    def __init__(self, model: Transformer, form: Form) -> None:
        self.sizes, self.form = model.sizes, form
        self.device = torch.device("cpu")
        self._packer = Packer(model.sizes, form, factors_of(model) if form == "int8" else {})
        self.packed = self._packer.pack(dict(model.named_parameters()))
        self.frequencies: Array = model.rope.frequencies.numpy()

    def prepare(self, weights: Mapping[str, Tensor]) -> Callable[[], None]:
        """Those that changed are packed beside the old ones; what it returns lets them take their place, and keeps the old ones:
        to free them takes longer."""
        old = self.packed
        held = self._packer.pack(weights, old)

        def switch() -> None:
            nonlocal held
            assert self.packed is old, "other weights came after these were prepared"
            self.packed, held = held, self.packed

        return switch

    def logits(self, tokens: Sequence[int], spans: Sequence[Span], cache: Cache, wanted: Sequence[int]) -> Tensor:
        """[B, V] at the `wanted` of a step's tokens; all of them go into the cache."""
        h, scale = self._hidden(tokens, spans, cache)
        at = torch.tensor(wanted, dtype=torch.long)
        out = self.packed.head.product(h[at]) if wanted else torch.empty(0, self.sizes.n_words)
        return out if self.form == "float32" else out.mul_(scale[at, None])

    def _hidden(self, tokens: Sequence[int], spans: Sequence[Span], cache: Cache) -> tuple[Tensor, Tensor]:
        """[N, M] the last hidden states, normalised, and [N] of what each is in parts."""
        kernels.use_torch_threads()
        s, N, whole, eps = self.sizes, len(tokens), self.form == "float32", np.float32(self.sizes.norm_eps)
        step = _Step(spans, self.frequencies)
        attend = kernels.attention(s.head_dim)
        keys, values = cache.keys.numpy(), cache.values.numpy()
        x, scale, none = self.packed.embedding[np.array(tokens)], np.ones(N, np.float32), np.empty(0, np.float32)
        h, seen, wide = (torch.empty(N, n) for n in (s.dim, s.n_heads * s.head_dim, s.hidden_dim))
        new: Array = np.zeros_like(x)
        for i, layer in enumerate(self.packed.layers):
            kernels.add_and_normalise(x, new, scale, none, layer.norm, eps, whole, h.numpy())
            qkv = layer.qkv.product(h)
            kernels.turn_and_store(qkv.numpy(), scale, layer.qkv_bias, layer.norms, eps, step.angles, step.at, keys[i], values[i])
            attend(qkv.numpy(), step.short, step.at, keys[i], values[i], seen.numpy())
            step.attend_together(qkv, cache.keys[i], cache.values[i], seen)
            if not whole:
                kernels.rows_in_parts(seen.numpy(), scale)
            new = layer.out.product(seen).numpy()
            kernels.add_and_normalise(x, new, scale, layer.out_bias, layer.mlp_norm, eps, whole, h.numpy())
            kernels.gated(layer.gate_up.product(h).numpy(), scale, whole, wide.numpy())
            new = layer.down.product(wide).numpy()
        kernels.add_and_normalise(x, new, scale, none, self.packed.norm, eps, whole, h.numpy())
        return h, torch.from_numpy(scale)


class _Step:
    """What of a step is the same in every layer."""

    def __init__(self, spans: Sequence[Span], frequencies: Array) -> None:
        lengths = [span.n for span in spans]
        ends = np.cumsum(lengths)
        rows = np.repeat([span.row for span in spans], lengths)
        places = np.arange(ends[-1]) + np.repeat([span.start for span in spans] - ends + lengths, lengths)
        self.at = (rows, places)
        turns = places[:, None].astype(np.float32) * frequencies
        self.angles = (np.cos(turns), np.sin(turns))
        self.short = np.flatnonzero(np.repeat(lengths, lengths) <= SHORT)
        self.long = [(int(end) - span.n, span) for end, span in zip(ends, spans, strict=True) if span.n > SHORT]

    def attend_together(self, qkv_NW: Tensor, keys_RKCD: Tensor, values_RKCD: Tensor, out_NW: Tensor) -> None:
        """Tokens of a prompt, a row at a time."""
        D, n_kv = keys_RKCD.shape[3], keys_RKCD.shape[1]
        n_heads = out_NW.shape[1] // D
        for start, span in self.long:
            at, length = slice(start, start + span.n), span.start + span.n
            q = qkv_NW[at, : n_heads * D].view(span.n, n_heads, D).transpose(0, 1)
            k, v = (x[span.row, :, :length].repeat_interleave(n_heads // n_kv, 0) for x in (keys_RKCD, values_RKCD))
            mask = causal(span, q.device)
            out = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, is_causal=mask is None)
            out_NW[at] = out[0].transpose(0, 1).reshape(span.n, -1)


def causal(span: Span, device: torch.device) -> Tensor | None:
    """[T, L] which keys each token of the span may look at; None: the span is the row's beginning."""
    if span.start == 0:
        return None
    places = torch.arange(span.start, span.start + span.n, device=device)
    return torch.arange(span.start + span.n, device=device) <= places[:, None]

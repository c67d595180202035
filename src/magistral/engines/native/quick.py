"""The model on a CPU: the numbers of a `Transformer` as the processor reads them quickest, and its layers in four products and
four passes between them. The definition is models/transformer.py; tests hold this to it.

    x += attention's part -> normalise -> queries, keys, values -> turn, store -> attend -> out
    x += feed-forward's part -> normalise -> gate and up -> gated -> down

Shape letters as in native/kernels.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from magistral.engines.native import kernels
from magistral.engines.native.cache import Cache, Span
from magistral.engines.native.linears import Form, Matrix, matrix
from magistral.engines.native.smooth import Factors, factors_of
from magistral.models.transformer import Transformer

Array = np.ndarray[Any, np.dtype[np.float32]]
SHORT = 8
"""Tokens of one row up to which each attends by itself (chosen: more than are guessed ahead; a prompt's go together)."""
QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")


class Layer(NamedTuple):
    norm: Array
    qkv: Matrix
    qkv_bias: Array
    norms: Array
    """Of queries and keys [2, D]; [0, D] where there are none."""
    out: Matrix
    out_bias: Array
    mlp_norm: Array
    gate_up: Matrix
    down: Matrix


class Quick:
    def __init__(self, model: Transformer, form: Form) -> None:
        self.sizes, self.form = model.sizes, form
        self.device = torch.device("cpu")
        self._homes: dict[str, tuple[Matrix | Array, int]] = {}
        """Of every weight by its name: what holds it, from which line on."""
        self._factors: Factors = factors_of(model) if form == "int8" else {}
        self._named = {name: self._own(name, weight) for name, weight in model.named_parameters(remove_duplicate=False)}
        self.layers = [self._layer(f"layers.{i}.", form) for i in range(self.sizes.n_layers)]
        self.embedding, self.norm = self._vector("embed_tokens.weight"), self._vector("norm.weight")
        self.head = self._matrix(["lm_head.weight"], form)
        del self._named
        self.frequencies: Array = model.rope.frequencies.numpy()

    def _layer(self, at: str, form: Form) -> Layer:
        return Layer(
            norm=self._vector(f"{at}input_layernorm.weight"),
            qkv=self._matrix([f"{at}self_attn.{part}.weight" for part in QKV], form),
            qkv_bias=self._vector(*(f"{at}self_attn.{part}.bias" for part in QKV)),
            norms=self._vector(f"{at}self_attn.q_norm.weight", f"{at}self_attn.k_norm.weight").reshape(-1, self.sizes.head_dim),
            out=self._matrix([f"{at}self_attn.o_proj.weight"], form),
            out_bias=self._vector(f"{at}self_attn.o_proj.bias"),
            mlp_norm=self._vector(f"{at}post_attention_layernorm.weight"),
            gate_up=self._matrix([f"{at}mlp.{part}.weight" for part in GATE_UP], form),
            down=self._matrix([f"{at}mlp.down_proj.weight"], form),
        )

    def _matrix(self, names: Sequence[str], form: Form) -> Matrix:
        weights = [self._named[name] for name in names]
        made = matrix(weights, form)
        self._settle(names, weights, made)
        return made

    def _vector(self, *names: str) -> Array:
        """A copy of those that the model has, end to end."""
        names = tuple(name for name in names if name in self._named)
        weights = [self._named[name] for name in names]
        made: Array = np.concatenate([w.numpy() for w in weights]) if weights else np.empty(0, np.float32)
        self._settle(names, weights, made)
        return made

    def _settle(self, names: Sequence[str], weights: Sequence[Tensor], home: Matrix | Array) -> None:
        start = 0
        for name, weight in zip(names, weights, strict=True):
            self._homes[name] = (home, start)
            start += len(weight)

    def _own(self, name: str, weight: Tensor) -> Tensor:
        weight = weight.detach().float().cpu()
        for factor in self._factors.get(name, ()):
            weight = weight * factor
        return weight

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Those that changed; a matrix of several is packed once."""
        if self.sizes.tied and "embed_tokens.weight" in weights:
            weights = {**weights, "lm_head.weight": weights["embed_tokens.weight"]}
        parts: defaultdict[int, list[tuple[int, Tensor]]] = defaultdict(list)
        matrices: dict[int, Matrix] = {}
        for name, new in weights.items():
            home, start = self._homes[name]
            weight = self._own(name, new)
            if isinstance(home, Matrix):
                matrices[id(home)] = home
                parts[id(home)].append((start, weight))
            else:
                home.reshape(-1, *weight.shape[1:])[start : start + len(weight)] = weight.numpy()
        for key, home in matrices.items():
            home.renew(parts[key])

    def logits(self, tokens: Sequence[int], spans: Sequence[Span], cache: Cache, wanted: Sequence[int]) -> Tensor:
        """[B, V] at the `wanted` of a step's tokens; all of them go into the cache."""
        h, scale = self._hidden(tokens, spans, cache)
        at = torch.tensor(wanted, dtype=torch.long)
        out = self.head.product(h[at]) if wanted else torch.empty(0, self.sizes.n_words)
        return out if self.form == "float32" else out.mul_(scale[at, None])

    def _hidden(self, tokens: Sequence[int], spans: Sequence[Span], cache: Cache) -> tuple[Tensor, Tensor]:
        """[N, M] the last hidden states, normalised, and [N] of what each is in parts."""
        kernels.use_torch_threads()
        s, N, whole, eps = self.sizes, len(tokens), self.form == "float32", np.float32(self.sizes.norm_eps)
        step = _Step(spans, self.frequencies)
        attend = kernels.attention(s.head_dim)
        keys, values = cache.keys.numpy(), cache.values.numpy()
        x, scale, none = self.embedding[np.array(tokens)], np.ones(N, np.float32), np.empty(0, np.float32)
        h, seen, wide = (torch.empty(N, n) for n in (s.dim, s.n_heads * s.head_dim, s.hidden_dim))
        new: Array = np.zeros_like(x)
        for i, layer in enumerate(self.layers):
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
        kernels.add_and_normalise(x, new, scale, none, self.norm, eps, whole, h.numpy())
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

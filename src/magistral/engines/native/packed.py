"""The model's numbers as the processor reads them quickest. A set is never changed: new weights make another one beside it, of
which the old one lends what stays, so that the engine can write on until the new one is whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from magistral.engines.native.linears import Form, Matrix, matrix
from magistral.engines.native.smooth import Factors
from magistral.models.sizes import Sizes

Array = np.ndarray[Any, np.dtype[np.float32]]
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


class Packed(NamedTuple):
    embedding: Array
    layers: Sequence[Layer]
    norm: Array
    head: Matrix


class Packer:
    """`factors`: what each weight is multiplied with (see smooth.py)."""

    def __init__(self, sizes: Sizes, form: Form, factors: Factors) -> None:
        self.sizes, self.form, self.factors = sizes, form, factors
        self.lines = {name: shape[0] for name, shape in {"lm_head.weight": (sizes.n_words,), **sizes.shapes()}.items()}

    def pack(self, weights: Mapping[str, Tensor], old: Packed | None = None) -> Packed:
        """`weights`: all of the model's, or those that are not as in `old`."""
        if self.sizes.tied and "embed_tokens.weight" in weights:
            weights = {**weights, "lm_head.weight": weights["embed_tokens.weight"]}
        layers = old.layers if old else [None] * self.sizes.n_layers
        return Packed(
            embedding=self._vector(["embed_tokens.weight"], weights, old and old.embedding),
            layers=[self._layer(f"layers.{i}.", weights, layer) for i, layer in enumerate(layers)],
            norm=self._vector(["norm.weight"], weights, old and old.norm),
            head=self._matrix(["lm_head.weight"], weights, old and old.head),
        )

    def _layer(self, at: str, new: Mapping[str, Tensor], old: Layer | None) -> Layer:
        norms = [f"{at}self_attn.q_norm.weight", f"{at}self_attn.k_norm.weight"]
        return Layer(
            norm=self._vector([f"{at}input_layernorm.weight"], new, old and old.norm),
            qkv=self._matrix([f"{at}self_attn.{part}.weight" for part in QKV], new, old and old.qkv),
            qkv_bias=self._vector([f"{at}self_attn.{part}.bias" for part in QKV], new, old and old.qkv_bias),
            norms=self._vector(norms, new, old and old.norms).reshape(-1, self.sizes.head_dim),
            out=self._matrix([f"{at}self_attn.o_proj.weight"], new, old and old.out),
            out_bias=self._vector([f"{at}self_attn.o_proj.bias"], new, old and old.out_bias),
            mlp_norm=self._vector([f"{at}post_attention_layernorm.weight"], new, old and old.mlp_norm),
            gate_up=self._matrix([f"{at}mlp.{part}.weight" for part in GATE_UP], new, old and old.gate_up),
            down=self._matrix([f"{at}mlp.down_proj.weight"], new, old and old.down),
        )

    def _matrix(self, names: Sequence[str], new: Mapping[str, Tensor], old: Matrix | None) -> Matrix:
        """Those weights below one another."""
        if old and new.keys().isdisjoint(names):
            return old
        return matrix(self._parts(names, new, old), self.form)

    def _vector(self, names: Sequence[str], new: Mapping[str, Tensor], old: Array | None) -> Array:
        """A copy of those that the model has, end to end."""
        names = [name for name in names if name in self.lines]
        if old is not None and new.keys().isdisjoint(names):
            return old
        parts = self._parts(names, new, old)
        return np.concatenate([part.numpy() for part in parts]) if parts else np.empty(0, np.float32)

    def _parts(self, names: Sequence[str], new: Mapping[str, Tensor], old: Matrix | Array | None) -> list[Tensor]:
        """Of each name what is new, else what `old` holds of it."""
        if old is None or new.keys() >= set(names):
            return [self._own(name, new[name]) for name in names]
        held = old.unpacked() if isinstance(old, Matrix) else torch.from_numpy(old.reshape(-1))
        parts = torch.split(held, [self.lines[name] for name in names])
        return [self._own(name, new[name]) if name in new else part for name, part in zip(names, parts, strict=True)]

    def _own(self, name: str, weight: Tensor) -> Tensor:
        weight = weight.detach().float().cpu()
        for factor in self.factors.get(name, ()):
            weight = weight * factor
        return weight

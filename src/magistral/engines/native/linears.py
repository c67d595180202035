"""Matrices in the forms in which their products are quick: those with the same input as one, float32 packed for the processor,
or 8 bits a weight."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["float32", "int8"]
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
SMALL = 2**16
"""Weights below which oneDNN takes longer to be called than to compute (chosen: 128 x 384 are, 576 x 576 are not)."""


class Matrix:
    """Numbers [O, I] behind a product; how they are held is the form's."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self.bias = bias_O
        self.pack(weight_OI)

    def pack(self, weight_OI: Tensor) -> None:
        """Take over a copy of new numbers."""
        self.weight = weight_OI.detach().clone()

    def unpacked(self) -> Tensor:
        return self.weight

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class PackedMatrix(Matrix):
    """The same numbers, laid out as oneDNN reads them: exact, but for the order of sums."""

    def pack(self, weight_OI: Tensor) -> None:
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().float().contiguous(), None)

    def unpacked(self) -> Tensor:
        return self.packed.to_dense()

    def product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


class Int8Matrix(Matrix):
    """A scale for each output, and for each token as it comes; the product is one of whole numbers.

    The scale of its own keeps a token apart from its neighbours, and the first tokens of a sequence, whose activations are
    hundreds of times as large, from rounding the rest away. `benchmarks/int8.py` measures what it costs in nats."""

    def pack(self, weight_OI: Tensor) -> None:
        weight = weight_OI.detach().float()
        scales = (weight.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():  # deprecated in torch 2.13 without a successor in it for this kernel
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
            quantised = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantised, None)

    def unpacked(self) -> Tensor:
        weight: Tensor = torch.ops.quantized.linear_unpack(self.packed)[0]
        return weight.dequantize()

    def product(self, x: Tensor) -> Tensor:
        if x.shape[-2] == 1:  # the kernel's own scale is of this token alone
            out = self._whole_numbers(x)
        else:
            scale = x.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
            out = self._whole_numbers(x / scale).mul_(scale)
        return out if self.bias is None else out.add_(self.bias)

    def _whole_numbers(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, False)  # noqa: FBT003 - no reduce_range: 7 bits lose more
        return out


class Joined:
    """Matrices that read the same input, multiplied as one when the first is asked; the last one asked lets go of the result."""

    def __init__(self, linears: Sequence[nn.Linear], form: Form) -> None:
        weights: list[Tensor] = [linear.weight for linear in linears]
        biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
        weight, bias = torch.cat(weights), torch.cat(biases).detach() if biases else None
        self.matrix = _kind(weight, form)(weight, bias)
        self._new: dict[tuple[int, int], Tensor] = {}
        self._out: Tensor | None = None

    def renew(self, start: int, end: int, weight_OI: Tensor) -> None:
        self._new[start, end] = weight_OI.detach().clone()

    def product(self, x: Tensor, *, first: bool, last: bool) -> Tensor:
        if self._new:
            weight = self.matrix.unpacked().clone()
            for (start, end), new in self._new.items():
                weight[start:end] = new
            self.matrix.pack(weight)
            self._new.clear()
        out = self.matrix.product(x) if first or self._out is None else self._out
        self._out = None if last else out
        return out


class Part(nn.Module):
    """In the place of an nn.Linear: its outputs among those of the matrices that it is joined with."""

    def __init__(self, joined: Joined, start: int, end: int) -> None:
        super().__init__()
        self.joined, self.start, self.end = joined, start, end
        n = joined.matrix.unpacked().shape[0]
        self.first, self.last = start == 0, end == n
        self.bias = None if joined.matrix.bias is None else joined.matrix.bias[start:end]

    def pack(self, weight_OI: Tensor) -> None:
        """Take over new numbers; they are packed when they are first used."""
        self.joined.renew(self.start, self.end, weight_OI)

    def forward(self, x: Tensor) -> Tensor:
        return self.joined.product(x, first=self.first, last=self.last)[..., self.start : self.end]


def _kind(weight_OI: Tensor, form: Form) -> type[Matrix]:
    """Small float32 matrices stay as they are, and all on a GPU: oneDNN's layout is the processor's."""
    if form == "int8":
        return Int8Matrix
    return PackedMatrix if weight_OI.device.type == "cpu" and weight_OI.numel() >= SMALL else Matrix


def pack_linears(module: nn.Module, form: Form) -> None:
    """Put a Part in the place of every nn.Linear, some at a time so that memory stays flat."""
    linears = {name: child for name, child in module.named_children() if isinstance(child, nn.Linear)}
    together: list[tuple[str, ...]] = [names for names in SAME_INPUT if names[0] in linears]
    together += [(name,) for name in linears if not any(name in names for names in SAME_INPUT)]
    for names in together:
        joined = Joined([linears[name] for name in names], form)
        start = 0
        for name in names:
            end = start + linears.pop(name).out_features
            setattr(module, name, Part(joined, start, end))
            start = end
    for child in module.children():
        if not isinstance(child, Part):
            pack_linears(child, form)

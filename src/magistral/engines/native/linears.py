"""Matrices in the forms in which their products are quick: float32 packed for the processor, or 8 bits a weight."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["float32", "int8"]
SMALL = 2**16
"""Weights below which oneDNN takes longer to be called than to compute (chosen: 128 x 384 are, 576 x 576 are not)."""
SEVEN_BITS = not torch.cpu.get_capabilities().get("avx512_vnni", False)
"""Of an input, instead of eight: without this instruction, sums of two products of 8 bits are cut off at 16 bits."""


class Matrix:
    """Numbers [O, I] behind a product; how they are held is the form's. Matrices that read the same input are one."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.weight = weight_OI

    def unpacked(self) -> Tensor:
        return self.weight

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class PackedMatrix(Matrix):
    """The same numbers, laid out as oneDNN reads them: exact, but for the order of sums."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), None)

    def unpacked(self) -> Tensor:
        return self.packed.to_dense()

    def product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return out


class Int8Matrix(Matrix):
    """A scale for each output; the product is one of whole numbers. Rows of `x` are to come in parts of their largest number.

    That keeps a token apart from its neighbours, and the first tokens of a sequence, whose activations are hundreds of times as
    large, from rounding the rest away. `benchmarks/int8.py` measures what 8 bits cost in nats."""

    def __init__(self, weight_OI: Tensor) -> None:
        scales = (weight_OI.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():  # deprecated in torch 2.13 without a successor in it for this kernel
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
            quantised = torch.quantize_per_channel(weight_OI, scales.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantised, None)

    def unpacked(self) -> Tensor:
        weight: Tensor = torch.ops.quantized.linear_unpack(self.packed)[0]
        return weight.dequantize()

    def product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, SEVEN_BITS)
        return out


def matrix(weights: Sequence[Tensor], form: Form) -> Matrix:
    """A copy of those weights [O, I] below one another; small float32 ones stay as they are."""
    weight_OI = torch.cat(list(weights)) if len(weights) > 1 else weights[0]
    if form == "int8":
        return Int8Matrix(weight_OI)
    return PackedMatrix(weight_OI) if weight_OI.numel() >= SMALL else Matrix(weight_OI.clone())

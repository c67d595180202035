"""Matrices held in 8 bits a weight, with a scale for each output (symmetric).

One token a row: activations are quantised too, as they come, and the product is one of whole numbers. Several tokens a row
(prompts): the product is in float32, since the first tokens of a sequence have activations hundreds of times as large as the
rest, and one scale for all would round the rest away. `benchmarks/int8.py` measures what each costs in nats.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Module):
    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.bias = bias_O
        self.pack(weight_OI)

    def pack(self, weight_OI: Tensor) -> None:
        weight = weight_OI.detach().float()
        scales = (weight.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():  # deprecated in torch 2.13 without a successor in it for this kernel
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
            quantised = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantised, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, M], or [B, T, M] with T tokens of each row."""
        if x.dim() == 3 and x.shape[1] > 1:
            weight, _ = torch.ops.quantized.linear_unpack(self.packed)
            return F.linear(x, weight.dequantize(), self.bias)
        out: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, False)  # noqa: FBT003 - no reduce_range: 7 bits lose more
        return out


def quantise_linears(module: nn.Module) -> None:
    """Put Int8Linear in the place of every nn.Linear, one at a time so that memory stays flat."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child.weight, child.bias))
        else:
            quantise_linears(child)

"""Matrices in the forms in which their products are quick: float32 packed for the processor, or 8 bits a weight."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor, nn

Form = Literal["float32", "int8"]
SMALL = 2**16
"""Weights below which oneDNN takes longer to be called than to compute (chosen: between 128 x 384, where it does, and 192 x 576)."""


class PackedLinear(nn.Module):
    """In the place of an nn.Linear whose weight nobody reads."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias_O is None else bias_O.detach().clone()
        self.pack(weight_OI)

    def pack(self, weight_OI: Tensor) -> None:
        """Take over new numbers."""
        raise NotImplementedError


class Float32Linear(PackedLinear):
    """The same numbers, laid out as oneDNN reads them: exact, but for the order of sums."""

    def pack(self, weight_OI: Tensor) -> None:
        weight = weight_OI.detach().float().contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


class Int8Linear(PackedLinear):
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

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] == 1:  # the kernel's own scale is of this token alone
            out = self._product(x)
        else:
            scale = x.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
            out = self._product(x / scale).mul_(scale)
        return out if self.bias is None else out.add_(self.bias)

    def _product(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, False)  # noqa: FBT003 - no reduce_range: 7 bits lose more
        return out


FORMS: dict[Form, type[PackedLinear]] = {"float32": Float32Linear, "int8": Int8Linear}


def pack_linears(module: nn.Module, form: Form) -> None:
    """Put a packed one in the place of every nn.Linear, one at a time so that memory stays flat.

    Small float32 ones stay as they are, and all on a GPU: oneDNN's layout is the processor's."""
    for name, child in list(module.named_children()):
        if not isinstance(child, nn.Linear):
            pack_linears(child, form)
        elif form != "float32" or (child.weight.device.type == "cpu" and child.weight.numel() >= SMALL):
            setattr(module, name, FORMS[form](child.weight, child.bias))

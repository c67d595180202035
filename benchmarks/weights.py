"""Why the native engine has 8-bit weights and no 4-bit ones: all products of a model once, in each form that torch computes.

    .venv/bin/python benchmarks/weights.py [--threads N]

Milliseconds of the products of one step by batch (medians), megabytes of the weights, and how far the products of random inputs
are from float32's (root mean square, in parts of the product's own).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import load_average, versions, write_results
from torch import Tensor

from magistral.engines.native.linears import Int8Matrix, PackedMatrix
from magistral.models.load import load_model

GROUP = 32
"""Weights that share a scale and a zero in 4 bits: the finest that torch's kernel has."""
Product = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, _ = load_model(args.model)
    weights = [
        p.detach() for name, p in model.named_parameters() if p.ndim == 2 and (name != "embed_tokens.weight" or model.sizes.tied)
    ]
    inputs = {b: {w.shape[1]: torch.randn(b, w.shape[1]) for w in weights} for b in args.batches}
    forms: dict[str, tuple[Callable[[Tensor], Product], float]] = {
        "float32": (lambda w: PackedMatrix(w).product, 4),
        "int8": (lambda w: Int8Matrix(w).product, 1),
        "int4": (int4, 0.5 + 8 / GROUP),
    }
    n_weights = sum(w.numel() for w in weights)
    result = {
        name: {"mb": round(n_weights * n_bytes / 1e6, 1), **measured(make, weights, inputs, args.repeats)}
        for name, (make, n_bytes) in forms.items()
    }
    write_results(
        "weights", {"versions": versions("torch"), **vars(args), "forms": result, "load_average_at_end": load_average()}
    )


@torch.inference_mode()
def measured(
    make: Callable[[Tensor], Product], weights: list[Tensor], inputs: dict[int, dict[int, Tensor]], repeats: int
) -> dict[str, Any]:
    products = [(make(w), w) for w in weights]
    times: dict[str, float] = {}
    for batch, by_width in inputs.items():
        spent = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            for product, w in products:
                product(by_width[w.shape[1]])
            spent.append(time.perf_counter() - start)
        times[str(batch)] = round(median(spent[1:]) * 1e3, 1)  # the first warms up
    by_width = next(iter(inputs.values()))
    errors = [off(product(by_width[w.shape[1]]), by_width[w.shape[1]] @ w.T) for product, w in products]
    found = {"ms": times, "error": round(median(errors), 4)}
    print(found)
    return found


def off(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt())


def int4(weight_OI: Tensor) -> Product:
    """A scale and a zero for each GROUP weights of an output, as torch's kernel for a processor takes them."""
    groups = weight_OI.float().view(len(weight_OI), -1, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp_min(1e-9)
    whole = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).view_as(weight_OI)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 2)
    scales_and_zeros = torch.cat((scale, low + 8 * scale), dim=-1).transpose(0, 1).contiguous()
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales_and_zeros)


if __name__ == "__main__":
    main()

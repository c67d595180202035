"""The processes that take one step together, each with its part of every weight (FSDP2; ZeRO-3, arXiv 1910.02054).

Every rank is given the same items and takes its own micro-batches of them; gradients, norms and numbers are those of all.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from magistral.models.transformer import Transformer

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Ranks:
    """One rank's view. A single process without a GPU needs no group, and its model is not sharded."""

    rank: int = 0
    n: int = 1
    device: torch.device = CPU

    @property
    def sharded(self) -> bool:
        return self.n > 1 or self.device.type == "cuda"

    def shard(self, module: nn.Module, model: Transformer) -> None:
        """Each layer of `model`, then what is left of `module` around it. On a GPU bf16 computes, float32 is kept of what is
        trained, bf16 of what is frozen. Nothing stays whole between passes: a look without a gradient leaves nothing stale."""
        if self.device.type == "cuda":
            for p in model.parameters():
                p.data = p.data if p.requires_grad else p.data.bfloat16()
        bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        shard: Callable[..., Any] = partial(
            fully_shard,
            mesh=init_device_mesh(self.device.type, (self.n,)),
            mp_policy=bf16 if self.device.type == "cuda" else MixedPrecisionPolicy(),
            reshard_after_forward=True,
        )
        for layer in model.layers:
            shard(layer)
        shard(module)

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Over all ranks; each must hold the same names in the same order."""
        if self.n == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def on_first(self, weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Whole tensors, one after the other: on the first rank in its memory, on others nothing. All ranks must ask."""
        for name, tensor in weights:
            if self.rank == 0:
                yield name, tensor.to(CPU)


ALONE = Ranks()


@contextmanager
def joined(rank: int, n: int, *, address: str, device: torch.device = CPU, limit_s: float = 600.0) -> Iterator[Ranks]:
    """Wait for all `n` ranks to come to `address` (host:port of the first). A rank that does not answer a collective within
    `limit_s` fails the step of all."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"tcp://{address}",
        rank=rank,
        world_size=n,
        timeout=timedelta(seconds=limit_s),
        device_id=device if on_gpu else None,
    )
    try:
        yield Ranks(rank, n, device)
    finally:
        dist.destroy_process_group()


def free_address(host: str = "127.0.0.1") -> str:
    """Of the first rank, as the others reach it: host:port, free at this moment."""
    with socket.socket() as s:
        s.bind(("", 0))
        return f"{host}:{s.getsockname()[1]}"


def recompute(model: Transformer) -> None:
    """Keep each layer's input only, and compute the rest again in the backward pass (Chen et al., arXiv 1604.06174)."""
    for layer in model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, from all ranks; another as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's rows of a tensor, and the number of the first: shards are rows, as many on every rank but the last ones."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    rows = math.ceil(tensor.shape[0] / tensor.device_mesh.size())
    return tensor.to_local(), min(tensor.shape[0], rows * tensor.device_mesh.get_local_rank())

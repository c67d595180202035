"""A trainer's state as files that any number of ranks can read: each rank writes its rows of every tensor, in safetensors.

Not torch.distributed.checkpoint, whose index is a pickle: a checkpoint from a stranger must not run code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from magistral.errors import RunFolderError
from magistral.trainer.ranks import Ranks, own

REMEDY = "remove this folder to go on from the checkpoint before"


def save_shard(folder: Path, state: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Tensors that are not sharded are written by the first rank alone."""
    mine = {name: own(tensor)[0].detach() for name, tensor in state.items() if tensor.dim() or ranks.rank == 0}
    save_file({name: t.contiguous() for name, t in mine.items()}, folder / f"trainer-{ranks.rank}-of-{ranks.n}.safetensors")


def load_shards(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Fill the tensors of `state` in place, whatever the number of ranks that wrote them.

    Raises RunFolderError, with nothing changed, if the files are of another recipe, incomplete, or cannot be read."""
    with ExitStack() as opened:
        try:
            files = [opened.enter_context(safe_open(path, framework="pt")) for path in _files(folder)]
        except (OSError, SafetensorError) as e:
            raise RunFolderError(f"the trainer's state in {folder} cannot be read ({e}): {REMEDY}") from None
        pieces: dict[str, list[Any]] = {}
        for file in files:
            for name in file.keys():  # noqa: SIM118 - no mapping
                pieces.setdefault(name, []).append(file.get_slice(name))
        if {n: list(t.shape) for n, t in state.items()} != {n: _shape(p) for n, p in pieces.items()}:
            raise RunFolderError(f"{folder} is of another recipe: its trainer's state holds other tensors than this one's")
        with torch.no_grad():
            for name, tensor in state.items():
                _fill(tensor, pieces[name])


def _files(folder: Path) -> list[Path]:
    """All of one saving, in the order of the ranks."""
    found = {path.name: path for path in folder.glob("trainer-*-of-*.safetensors")}
    counts = {int(m[1]) for name in found if (m := re.fullmatch(r"trainer-\d+-of-(\d+)\.safetensors", name))}
    n = counts.pop() if len(counts) == 1 else 0
    wanted = [f"trainer-{rank}-of-{n}.safetensors" for rank in range(n)]
    if not n or sorted(wanted) != sorted(found):
        raise RunFolderError(f"{folder} holds no whole state of a trainer (trainer-0-of-N.safetensors and so on): {REMEDY}")
    return [found[name] for name in wanted]


def _shape(pieces: list[Any]) -> list[int]:
    first, *others = (piece.get_shape() for piece in pieces)
    return [first[0] + sum(shape[0] for shape in others), *first[1:]] if others else list(first)


def _fill(tensor: Tensor, pieces: list[Any]) -> None:
    if not tensor.dim():
        tensor.fill_(pieces[0][...].item())
        return
    mine, first = own(tensor)
    start = 0
    for piece in pieces:
        end = start + piece.get_shape()[0]
        a, b = max(start, first), min(end, first + len(mine))
        if a < b:
            mine[a - first : b - first].copy_(piece[a - start : b - start])
        start = end

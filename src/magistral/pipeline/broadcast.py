"""Weights on their way from the trainer to the generators: arrays in the object store, sealed by version and checksum.

Two versions are held at most, the new one while generators may still read the old: the store's double buffer. A generator
reads the arrays where they lie, checks and packs them while its engine writes on, and changes over between two tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from magistral.errors import GeneratorLost

Arrays = dict[str, np.ndarray[Any, Any]]


class OtherWeights(GeneratorLost):
    """What arrived is not what was sent: a generator that went on would write under weights that nobody knows."""


@dataclass(frozen=True, slots=True)
class Seal:
    version: int
    checksum: str
    """XXH3 (128 bits) of all names, shapes and bytes."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a trainer hands to the generators."""

    reference: Any
    """To `Arrays` in the object store."""
    seal: Seal


def pack(tensors: Mapping[str, Tensor], version: int) -> tuple[Seal, Arrays]:
    """The arrays share the tensors' memory where that is on the CPU."""
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    return Seal(version, _checksum(arrays)), arrays


def unpack(arrays: Arrays, seal: Seal) -> dict[str, Tensor]:
    """Tensors over the same memory, to be read only. Raises OtherWeights."""
    found = _checksum(arrays)
    if found != seal.checksum:
        raise OtherWeights(f"weights of version {seal.version} have the checksum {found}, and {seal.checksum} was sent")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor do we write
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _checksum(arrays: Arrays) -> str:
    digest = xxhash.xxh3_128()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

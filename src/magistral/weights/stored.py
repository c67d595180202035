"""A tensor that lies in a file: its place and type, read a few rows at a time so that memory stays small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magistral.errors import ModelError
from magistral.weights.kinds import Bytes, Floats, n_bytes, to_floats

CHUNK_BYTES = 64 * 2**20
"""Of the file, read at once (chosen: large enough that a disc is not slowed, small beside a large model's tensors)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    name: str
    """Ours (see names.py)."""
    kind: str
    """Type of the numbers, as "BF16" or "Q4_K"."""
    shape: tuple[int, ...]
    file: Path
    offset: int
    """Bytes from the start of the file."""
    n_heads: int = 0
    """Of a query or key tensor whose heads' rows lie in rotated pairs (Mistral's and llama.cpp's order); 0: in ours."""

    @property
    def n_bytes(self) -> int:
        return n_bytes(self.kind, self.shape)

    def chunks(self, n_heads: int = 0) -> Iterator[Bytes]:
        """[R, bytes of a row] in our order, whole heads at a time where the file's order differs or `n_heads` asks for it.

        A vector is a column. Raises ModelError where the file ends too early, or heads do not fit."""
        n_rows = self.shape[0]
        size = self.n_bytes // n_rows if n_rows else 0
        heads = self.n_heads or n_heads
        if heads and n_rows % heads:
            raise ModelError(f"{self.file}: {self.name} has {n_rows} rows, which cannot be shared by {heads} heads")
        unit = n_rows // heads if heads else 1
        step = max(1, CHUNK_BYTES // max(1, size * unit)) * max(1, unit)
        with self.file.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, n_rows, step):
                n = min(step, n_rows - start)
                data = np.frombuffer(file.read(n * size), dtype=np.uint8)
                if data.size != n * size:
                    raise ModelError(f"{self.file} ends in the middle of {self.name}: it is cut short; fetch it again")
                rows = data.reshape(n, size)
                yield unpaired(rows, n // unit) if self.n_heads else rows

    def floats(self) -> Floats:
        """The whole tensor as float32."""
        out = np.empty(self.shape, dtype=np.float32)
        place = 0
        for rows in self.chunks():
            out[place : place + len(rows)] = to_floats(rows, self.kind).reshape(len(rows), *self.shape[1:])
            place += len(rows)
        return out


def unpaired(rows: Bytes, n_heads: int) -> Bytes:
    """Row pairs (0, 1), (2, 3)... of each head to first halves, then second halves: Hugging Face's rotary layout."""
    return np.ascontiguousarray(rows.reshape(n_heads, -1, 2, rows.shape[1]).swapaxes(1, 2)).reshape(rows.shape)


def paired(rows: Bytes, n_heads: int) -> Bytes:
    """The inverse of `unpaired`."""
    return np.ascontiguousarray(rows.reshape(n_heads, 2, -1, rows.shape[1]).swapaxes(1, 2)).reshape(rows.shape)

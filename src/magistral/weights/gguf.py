"""Reading a GGUF file: its fields, and where its tensors lie.

The format (version 2 and 3, little endian): magic, version, the counts of tensors and fields; fields (name, type, value);
tensors (name, dimensions from the innermost out, type, offset); then the numbers. Parsed here and not by the `gguf` package,
which takes seconds for a vocabulary and trusts the counts that a broken file names.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from magistral.errors import ModelError
from magistral.weights.kinds import known, n_bytes
from magistral.weights.names import is_left_out, our_name
from magistral.weights.stored import Stored

PAIRED = ("llama", "mistral")
"""Architectures whose queries and keys llama.cpp holds in rotated pairs."""
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_FIELDS, _MAX_DIMS = 65_536, 4


class GgufFile:
    """`fields` by name and `tensors` under our names. Raises ModelError saying what is broken or not covered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, Any] = {}
        self.tensors: dict[str, Stored] = {}
        try:
            with path.open("rb") as file:
                data = _Cursor(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
            self._read(data)
        except OSError as e:
            raise ModelError(f"{path} cannot be read: {e.strerror}") from None
        except (ValueError, struct.error, OverflowError) as e:  # a memory map of nothing, a name that is no UTF-8
            raise ModelError(f"{path} cannot be read as GGUF: {e}") from None

    @property
    def tied(self) -> bool:
        return "lm_head.weight" not in self.tensors

    def _read(self, data: _Cursor) -> None:
        magic, version = data.take(4), data.number("I")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"magic {magic!r}, version {version}; what is covered: b'GGUF', 2 and 3")
        n_tensors, n_fields = data.number("Q"), data.number("Q")
        if max(n_tensors, n_fields) > _MAX_FIELDS:
            raise ValueError(f"{n_tensors} tensors and {n_fields} fields")
        for _ in range(n_fields):
            name = data.string()
            self.fields[name] = data.value(data.number("I"), depth=0)
        infos = [self._tensor_info(data) for _ in range(n_tensors)]
        alignment = self.fields.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 2**20:
            raise ValueError(f"an alignment of {alignment!r}")
        start = -(-data.place // alignment) * alignment
        for name, shape, kind, offset in infos:
            self._add(name, shape, kind, start + offset, len(data.view))

    def _tensor_info(self, data: _Cursor) -> tuple[str, tuple[int, ...], str, int]:
        name, n_dims = data.string(), data.number("I")
        if not 0 < n_dims <= _MAX_DIMS:
            raise ValueError(f"{name!r} has {n_dims} dimensions")
        shape = tuple(reversed([data.number("Q") for _ in range(n_dims)]))
        number, offset = data.number("I"), data.number("Q")
        kind = next((k.name for k in GGMLQuantizationType if k.value == number), f"number {number}")
        if not known(kind):
            raise ValueError(f"{name!r} is of type {kind}, which is not covered")
        if math.prod(shape) > 2**48 or offset > 2**60:
            raise ValueError(f"{name!r} has shape {shape} at {offset}")
        return name, shape, kind, offset

    def _add(self, name: str, shape: tuple[int, ...], kind: str, offset: int, size: int) -> None:
        if is_left_out(name):
            return
        if name == "rope_freqs.weight":
            raise ModelError(f"{self.path}: rope scaling (rope_freqs) is not covered")
        ours = our_name(name, "gguf")
        if ours is None:
            raise ModelError(f"{self.path}: a tensor {name!r} that the dense family does not have")
        if ours in self.tensors:
            raise ValueError(f"two tensors {name!r}")
        try:
            end = offset + n_bytes(kind, shape)
        except ModelError as e:
            raise ValueError(f"{name!r}: {e}") from None
        if end > size:
            raise ModelError(f"{self.path} is cut short: {size} bytes, and {name} ends at {end}; fetch it again")
        heads = self._paired_heads(ours, shape)
        self.tensors[ours] = Stored(name=ours, kind=kind, shape=shape, file=self.path, offset=offset, n_heads=heads)

    def _paired_heads(self, name: str, shape: tuple[int, ...]) -> int:
        family = self.fields.get("general.architecture")
        if family not in PAIRED or (".self_attn.q_proj." not in name and ".self_attn.k_proj." not in name):
            return 0
        key = f"{family}.attention.head_count" + ("_kv" if ".k_proj." in name else "")
        heads = self.fields.get(key, self.fields.get(f"{family}.attention.head_count"))
        if type(heads) is not int or heads < 1 or shape[0] % (2 * heads):
            raise ValueError(f"{heads!r} heads in the {shape[0]} rows of {name}")
        return heads


class _Cursor:
    """Takes values off a file's bytes; ValueError past their end."""

    def __init__(self, view: memoryview) -> None:
        self.view, self.place = view, 0

    def take(self, n: int) -> bytes:
        if n > len(self.view) - self.place:
            raise ValueError(f"it ends at {len(self.view)} bytes, in the middle of its header")
        self.place += n
        return bytes(self.view[self.place - n : self.place])

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind: int, *, depth: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(depth)
        if kind not in _SCALARS:
            raise ValueError(f"a field of type {kind}")
        number = self.number(_SCALARS[kind])
        return _shortest(number) if kind == 6 else number

    def _array(self, depth: int) -> list[Any]:
        kind, n = self.number("I"), self.number("Q")
        if depth > 2 or n > len(self.view) - self.place:  # an element is a byte at least
            raise ValueError(f"an array of {n} values in {len(self.view)} bytes")
        if kind in _SCALARS:
            code = f"<{n}{_SCALARS[kind]}"
            return list(struct.unpack(code, self.take(struct.calcsize(code))))
        return [self.value(kind, depth=depth + 1) for _ in range(n)]


def _shortest(number: float) -> float:
    """The decimal that a float32 was written as: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))

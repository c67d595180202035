"""The safetensors format: the length of a JSON header, the header, then the numbers, end to end.

Our own few lines, not the library's: these give raw bytes of any type without torch, and a file's header before its numbers,
so that a model is written as it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magistral.errors import ModelError
from magistral.weights.kinds import FLOATS, n_bytes
from magistral.weights.stored import Stored

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def read_header(file: Path) -> dict[str, Stored]:
    """Tensors under the file's own names, each known to lie inside the file. Raises ModelError saying what is broken."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise ModelError(f"{file} is no whole safetensors file: {size} bytes, and a header of {length}")
            header = json.loads(stream.read(length))
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise ModelError(f"{file}: its header is no JSON: {e}") from None
    if not isinstance(header, dict):
        raise ModelError(f"{file}: its header names no tensors")
    header.pop("__metadata__", None)
    found = {name: _entry(file, name, entry, 8 + length) for name, entry in header.items()}
    _check_places(file, found, 8 + length, size)
    return found


def _entry(file: Path, name: str, entry: Any, start: int) -> Stored:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sound = all(type(n) is int and 0 <= n < 2**48 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise ModelError(f"{file}: the header's entry of {name!r} is broken")
    if kind not in FLOATS:
        raise ModelError(f"{file}: {name} is of type {kind!r}; what is covered in such files: {', '.join(FLOATS)}")
    if not shape or end - begin != n_bytes(kind, shape):
        raise ModelError(f"{file}: {name} of shape {list(shape)} does not fill the {end - begin} bytes that the header gives it")
    return Stored(name=name, kind=kind, shape=shape, file=file, offset=start + begin)


def _check_places(file: Path, found: Mapping[str, Stored], start: int, size: int) -> None:
    """Every tensor inside the file, no byte of two."""
    end = start
    for tensor in sorted(found.values(), key=lambda t: (t.offset, t.n_bytes)):
        if tensor.offset < end:
            raise ModelError(f"{file}: {tensor.name} overlaps another tensor")
        end = tensor.offset + tensor.n_bytes
        if end > size:
            raise ModelError(f"{file} is cut short: {size} bytes, and {tensor.name} ends at {end}; fetch it again")


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """The start of a file that holds these (type, shape), in order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, (kind, shape) in tensors.items():
        end = place + math.prod(shape) * FLOATS[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text

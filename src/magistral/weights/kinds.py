"""Number types of stored tensors, from float32 down to 4 bits, and the way to float32 and back.

A type's name is GGUF's, which for plain floats is also safetensors': F32, F16, BF16, Q8_0, Q4_K...
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import QuantError, dequantize, quantize

from magistral.errors import ModelError

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

FLOATS = {"F32": 4, "F16": 2, "BF16": 2}
"""Plain types and their bytes a number: what Hugging Face and Mistral folders may hold here."""
_EXPONENT: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F32": (np.uint32, 0x7F80_0000), "F16": (np.uint16, 0x7C00), "BF16": (np.uint16, 0x7F80),
}  # fmt: skip
"""Bits which are all set in what is infinite or no number, and only there."""
_SCALES = {
    **dict.fromkeys(("Q8_0", "Q4_0", "Q5_0"), (0,)), **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,),
}  # fmt: skip
"""Bytes from a block's start to its float16 scales: all else in it is whole numbers."""
WRITABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0")


def _is_readable(kind: GGMLQuantizationType) -> bool:
    """Some types of llama.cpp are made while it computes and are in no file: nothing reads them back."""
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
    except NotImplementedError:
        return False
    return True


_KINDS = {kind.name: kind for kind in GGML_QUANT_SIZES if _is_readable(kind)}


def known(kind: str) -> bool:
    return kind in _KINDS


def fits(kind: str, width: int) -> bool:
    """Whether rows of `width` numbers divide into the type's blocks."""
    return width % GGML_QUANT_SIZES[_KINDS[kind]][0] == 0


def row_bytes(kind: str, width: int) -> int:
    """Raises ModelError where a row does not divide into blocks."""
    block, size = GGML_QUANT_SIZES[_KINDS[kind]]
    if width % block:
        raise ModelError(f"a row of {width} numbers does not divide into {kind}'s blocks of {block}")
    return width // block * size


def n_bytes(kind: str, shape: tuple[int, ...]) -> int:
    if kind in FLOATS:
        return math.prod(shape) * FLOATS[kind]
    return math.prod(shape[:-1]) * row_bytes(kind, shape[-1])


def to_floats(rows: Bytes, kind: str) -> Floats:
    """[R, bytes of a row] -> [R, width]. Exact: every type's values are float32 values."""
    if kind == "F32":
        return rows.view(np.float32)
    if kind == "F16":
        return rows.view(np.float16).astype(np.float32)
    if kind == "BF16":
        return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return dequantize(rows, _KINDS[kind]).astype(np.float32, copy=False)


def all_finite(rows: Bytes, kind: str) -> bool:
    """[R, bytes of a row] hold neither infinities nor what is no number. Cheap: of blocks their scales alone are looked at."""
    if kind in _EXPONENT:
        number, exponent = _EXPONENT[kind]
        return not ((rows.view(number) & exponent) == exponent).any()
    if kind not in _SCALES:
        return all(bool(np.isfinite(to_floats(row[None], kind)).all()) for row in rows)
    blocks = rows.reshape(-1, GGML_QUANT_SIZES[_KINDS[kind]][1])
    return all(all_finite(np.ascontiguousarray(blocks[:, at : at + 2]), "F16") for at in _SCALES[kind])


def from_floats(numbers: Floats, kind: str) -> Bytes:
    """[R, width] -> [R, bytes of a row], each number to the nearest that the type has.

    Raises ModelError where a number is too large for float16, and for types that only llama.cpp's own quantiser makes."""
    if kind == "F16":
        with np.errstate(over="ignore"):
            half = numbers.astype(np.float16)
        if not np.isfinite(half).all() and np.isfinite(numbers).all():
            raise ModelError(f"a weight of {np.abs(numbers).max():g} is over float16's 65504: use bf16 or f32")
        return half.view(np.uint8)
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a block of zeros; a scale over 65504
            packed = quantize(np.ascontiguousarray(numbers), _KINDS[kind])
    except (NotImplementedError, QuantError):
        raise ModelError(f"{kind} cannot be written here; what can: {', '.join(WRITABLE)}") from None
    return np.ascontiguousarray(packed).view(np.uint8)


def recast(rows: Bytes, kind: str, wanted: str) -> Bytes:
    """Rows of one type as rows of another; the same type is not touched."""
    return rows if kind == wanted else from_floats(to_floats(rows, kind), wanted)


def quant_type(kind: str) -> GGMLQuantizationType:
    return _KINDS[kind]

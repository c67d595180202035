"""What a layer does between its matrix products, each in one pass while the numbers are at hand: compiled for the processor.

In torch each of these is five to ten operations that read and write everything anew, over a third of an 8-bit step.
Rows of a product may be in parts of their largest number (for `Int8Matrix`): `scale_N` holds what they are parts of. Each kernel
reads the scales of what it is given and, unless `whole`, leaves those of what it makes.
Shape letters as in models/transformer.py; N tokens of a step, R rows of the cache, C places of a row, S tokens that attend.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads


def _kept_on_disk() -> bool:
    """False where nothing may be written beside this file nor in the user's own cache: each process then compiles anew."""
    try:
        njit(cache=True)(_kept_on_disk)
    except RuntimeError:
        return False
    return True


def _safe_side_by_side() -> bool:
    """Whether two Python threads may run kernels at once: numba's own pool then ends the process, OpenMP's does not."""
    try:
        from numba.np.ufunc import omppool  # type: ignore[attr-defined]  # noqa: F401
    except ImportError:
        return False
    return config.THREADING_LAYER in ("default", "omp", "threadsafe")  # type: ignore[attr-defined]


OPTIONS: dict[str, Any] = {
    "cache": _kept_on_disk(),  # the first use on a machine takes some ten seconds, the next ones none
    "parallel": True,
    "nogil": _safe_side_by_side(),  # a server's other threads go on meanwhile
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},  # sums in any order; what is not a number stays so
}
INNER = {**OPTIONS, "parallel": False}
f32 = np.float32
ZERO, ONE, HALF, LEAST = f32(0), f32(1), f32(0.5), f32(1e-30)
LOG2_E, LIMIT = f32(1.4426950408889634), f32(126)
C1, C2, C3, C4, C5, C6 = (f32(np.log(2) ** i / np.prod(np.arange(1.0, i + 1))) for i in range(1, 7))


def use_torch_threads() -> None:
    """As many as torch uses, which stay: numba, starting its threads, sets the number that OpenMP has, and so torch's too."""
    n = torch.get_num_threads()
    set_num_threads(min(n, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    if torch.get_num_threads() != n:
        torch.set_num_threads(n)


@njit(**INNER)
def exponentials(x: Any) -> None:
    """In place: 2**n by the bits of a float, 2**(-0.5 ... 0.5) by its series. Off by 3e-7 of each where x is near 0, by 1e-5 at
    most. Loops of a few plain operations become vector instructions; a call of exp() does not."""
    bits = np.empty(len(x), np.int32)
    for i in range(len(x)):
        exponent = min(max(x[i] * LOG2_E, -LIMIT), LIMIT)
        n = np.floor(exponent + HALF)
        f = exponent - n
        x[i] = ONE + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6)))))
        bits[i] = (np.int32(n) + np.int32(127)) << np.int32(23)
    powers = bits.view(np.float32)
    for i in range(len(x)):
        x[i] *= powers[i]


@njit(**INNER)
def part_of_largest(x: Any) -> Any:
    """In place; returns the largest."""
    largest = LEAST
    for i in range(len(x)):
        largest = max(largest, abs(x[i]))
    for i in range(len(x)):
        x[i] /= largest
    return largest


@njit(**OPTIONS)
def add_and_normalise(  # noqa: PLR0913 - arrays are all that a kernel knows
    x_NM: Any, new_NM: Any, scale_N: Any, bias_M: Any, weight_M: Any, eps: Any, whole: bool, out_NM: Any
) -> None:
    """What a part of the layer made goes into the stream `x_NM`; RMSNorm of that is read by the next. No bias: an empty array."""
    N, M = x_NM.shape
    for n in prange(N):
        scale, squares = scale_N[n], ZERO
        for m in range(M):
            x_NM[n, m] += new_NM[n, m] * scale
        for m in range(len(bias_M)):
            x_NM[n, m] += bias_M[m]
        for m in range(M):
            squares += x_NM[n, m] * x_NM[n, m]
        factor = ONE / np.sqrt(squares / f32(M) + eps)
        for m in range(M):
            out_NM[n, m] = x_NM[n, m] * factor * weight_M[m]
        if not whole:
            scale_N[n] = part_of_largest(out_NM[n])


@njit(**INNER)
def turn(x_D: Any, cos: Any, sin: Any) -> None:
    half = len(x_D) // 2
    for d in range(half):
        first, second = x_D[d], x_D[d + half]
        x_D[d] = first * cos[d] - second * sin[d]
        x_D[d + half] = second * cos[d] + first * sin[d]


@njit(**OPTIONS)
def turn_and_store(  # noqa: PLR0913
    qkv_NW: Any, scale_N: Any, bias_W: Any, norms_2D: Any, eps: Any, angles: Any, at: Any, keys_RKCD: Any, values_RKCD: Any
) -> None:
    """Rotary positions (`angles`: cosine and sine [N, D/2]), after normalising queries and keys where there are `norms_2D`; keys
    and values into the cache (`at`: row and place [N]); queries stay in `qkv_NW`, its heads in a row: queries, keys, values."""
    cos, sin = angles
    rows, places = at
    _, K, _, D = keys_RKCD.shape
    n_queries = qkv_NW.shape[1] // D - 2 * K
    for n in prange(len(qkv_NW)):
        all_heads = qkv_NW[n]
        all_heads *= scale_N[n]
        if len(bias_W):
            all_heads += bias_W
        for head in range(n_queries + K):
            x = all_heads[head * D : (head + 1) * D]
            if len(norms_2D):
                x *= norms_2D[0 if head < n_queries else 1] / np.sqrt((x * x).sum() / f32(D) + eps)
            turn(x, cos[n], sin[n])
        for head in range(K):
            start = (n_queries + head) * D
            keys_RKCD[rows[n], head, places[n]] = all_heads[start : start + D]
            values_RKCD[rows[n], head, places[n]] = all_heads[start + K * D : start + (K + 1) * D]


@lru_cache(maxsize=4)
def attention(head_dim: int) -> Callable[..., None]:  # noqa: C901 - the loops of the three kernels in it
    """Of tokens by themselves, each over what its row holds up to its place. The compiler knows `head_dim`, and unrolls."""
    D, scale = head_dim, f32(head_dim**-0.5)

    @njit(**INNER)
    def weigh(q_D: Any, keys_CD: Any, weight_L: Any) -> None:
        """What each key counts, all together 1."""
        for k in range(len(weight_L)):
            product = ZERO
            for d in range(D):
                product += q_D[d] * keys_CD[k, d]
            weight_L[k] = product * scale
        weight_L -= weight_L.max()
        exponentials(weight_L)
        weight_L /= weight_L.sum()

    @njit(**INNER)
    def mix(weight_L: Any, values_CD: Any, out_D: Any) -> None:
        out = np.zeros(D, np.float32)
        fours = len(weight_L) // 4 * 4
        for k in range(0, fours, 4):  # four at once: what is summed is read and written less often
            a, b, c, e = weight_L[k], weight_L[k + 1], weight_L[k + 2], weight_L[k + 3]
            for d in range(D):
                out[d] += a * values_CD[k, d] + b * values_CD[k + 1, d] + c * values_CD[k + 2, d] + e * values_CD[k + 3, d]
        for k in range(fours, len(weight_L)):
            for d in range(D):
                out[d] += weight_L[k] * values_CD[k, d]
        for d in range(D):
            out_D[d] = out[d]

    @njit(**OPTIONS)
    def attend(qkv_NW: Any, which_S: Any, at: Any, keys_RKCD: Any, values_RKCD: Any, out_NW: Any) -> None:
        rows, places = at
        K = keys_RKCD.shape[1]
        n_sharing = out_NW.shape[1] // (K * D)
        for i in prange(len(which_S) * K):
            n, head = which_S[i // K], i % K
            weight = np.empty(places[n] + 1, np.float32)
            for query in range(head * n_sharing, (head + 1) * n_sharing):
                here = slice(query * D, (query + 1) * D)
                weigh(qkv_NW[n, here], keys_RKCD[rows[n], head], weight)
                mix(weight, values_RKCD[rows[n], head], out_NW[n, here])

    return attend  # type: ignore[no-any-return]


@njit(**OPTIONS)
def rows_in_parts(x_NM: Any, scale_N: Any) -> None:
    for n in prange(len(x_NM)):
        scale_N[n] = part_of_largest(x_NM[n])


@njit(**OPTIONS)
def gated(both_NW: Any, scale_N: Any, whole: bool, out_NF: Any) -> None:
    """silu(gate) * up, which lie side by side in `both_NW`."""
    N, F = out_NF.shape
    for n in prange(N):
        scale, out = scale_N[n], out_NF[n]
        gate, up = both_NW[n, :F], both_NW[n, F:]
        for m in range(F):
            out[m] = -scale * gate[m]
        exponentials(out)
        for m in range(F):
            out[m] = scale * gate[m] * scale * up[m] / (ONE + out[m])
        if not whole:
            scale_N[n] = part_of_largest(out)

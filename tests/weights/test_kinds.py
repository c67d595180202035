"""Number types: values worked by hand, and that nothing is lost where a type has the room."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral.errors import ModelError
from magistral.weights.kinds import Bytes, all_finite, from_floats, known, n_bytes, recast, row_bytes, to_floats


def row(*numbers: float) -> np.ndarray:
    return np.array([numbers], dtype=np.float32)


def raw(*numbers: int) -> Bytes:
    return np.array([numbers], dtype=np.uint8)


@pytest.mark.parametrize(
    ("kind", "stored", "numbers"),
    [
        ("F32", raw(0, 0, 0xC0, 0x3F), [1.5]),
        ("F16", raw(0, 0x3E, 0, 0xC0), [1.5, -2.0]),
        ("BF16", raw(0xC0, 0x3F, 0, 0xC0), [1.5, -2.0]),
        # a block of Q8_0: its scale 0.5 as float16, then 32 whole numbers
        ("Q8_0", raw(0, 0x38, *range(31), 0xFF), [*(i / 2 for i in range(31)), -0.5]),
        # of Q4_0: scale 2, then two numbers a byte less 8, the low halves first
        ("Q4_0", raw(0, 0x40, *[0x80 + i for i in range(16)]), [*((i - 8) * 2.0 for i in range(16)), *[0.0] * 16]),
    ],
    ids=["F32", "F16", "BF16", "Q8_0", "Q4_0"],
)
def test_stored_bytes_are_these_numbers(kind: str, stored: Bytes, numbers: list[float]) -> None:
    assert to_floats(stored, kind).tolist() == [numbers]
    assert row_bytes(kind, len(numbers)) == stored.shape[1]


@pytest.mark.parametrize(
    ("number", "bits"),
    [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (float("inf"), 0x7F80), (-0.0, 0x8000)],
    ids=["exact", "half way goes to the even below", "half way goes to the even above", "infinite", "minus zero"],
)
def test_bf16_rounds_to_the_nearest_and_to_the_even(number: float, bits: int) -> None:
    assert from_floats(row(number), "BF16").view(np.uint16).tolist() == [[bits]]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_block_of_zeros_stays_zeros(kind: str) -> None:
    assert not to_floats(from_floats(np.zeros((2, 32), dtype=np.float32), kind), kind).any()


@pytest.mark.parametrize(("kind", "steps"), [("Q8_0", 127), ("Q4_0", 8)])
def test_a_quantised_number_is_within_half_a_step(kind: str, steps: int) -> None:
    numbers = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    blocks = numbers.reshape(8, 2, 32)
    step = np.abs(blocks).max(-1, keepdims=True) / steps
    error = np.abs(to_floats(from_floats(numbers, kind), kind).reshape(8, 2, 32) - blocks)
    limit = 0.5 if kind == "Q8_0" else 1.0  # 4 bits run from -8 to 7: the far end on the positive side is cut
    assert (error <= step * limit * 1.01).all()


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40))
def test_every_bf16_number_survives_float32_and_itself(bits: list[int]) -> None:
    stored = np.array([bits], dtype=np.uint16).view(np.uint8)
    floats = to_floats(stored, "BF16")
    assert recast(stored, "BF16", "BF16") is stored
    finite = np.isfinite(floats[0])
    assert (from_floats(floats, "BF16").view(np.uint16)[0] == np.array(bits, dtype=np.uint16))[finite].all()


def test_a_number_over_float16_is_an_error_and_no_infinity() -> None:
    with pytest.raises(ModelError, match="70000 is over float16's 65504"):
        from_floats(row(1.0, 70000.0), "F16")
    assert from_floats(row(65504.0), "F16").view(np.float16).tolist() == [[65504.0]]


@pytest.mark.parametrize(
    ("kind", "covered"),
    [("Q4_K", True), ("BF16", True), ("MXFP4", True), *((kind, False) for kind in ("Q8_1", "Q8_K", "Q1_0", "I8", "F64", "x"))],
)
def test_a_type_is_known_only_where_its_numbers_can_be_read(kind: str, covered: bool) -> None:
    assert known(kind) == covered


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, number) for kind in ("F32", "F16", "BF16") for number in (float("nan"), float("inf"), float("-inf"))],
)
def test_what_is_no_number_is_seen(kind: str, number: float) -> None:
    assert all_finite(from_floats(row(1.0, -0.0, 65504.0), kind), kind)
    assert not all_finite(from_floats(row(1.0, number, 65504.0), kind), kind)


@pytest.mark.parametrize(
    "kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ2_0"]
)
def test_blocks_are_finite_just_where_their_numbers_are(kind: str) -> None:
    width = row_bytes(kind, 256)
    found = set()
    for place in range(1, width):
        blocks = np.full((2, width), 0x3B, dtype=np.uint8)
        blocks[1, place - 1 : place + 1] = 0x00, 0x7C  # infinity, where a float16 lies there
        with np.errstate(invalid="ignore"):  # infinity less infinity
            finite = bool(np.isfinite(to_floats(blocks, kind)).all())
        assert all_finite(blocks, kind) == finite
        found.add(finite)
    assert found == {True, False}


def test_a_row_that_does_not_divide_into_blocks_is_an_error() -> None:
    with pytest.raises(ModelError, match="row of 40 numbers does not divide into Q8_0's blocks of 32"):
        n_bytes("Q8_0", (2, 40))


def test_a_type_that_only_llama_cpp_makes_is_an_error() -> None:
    with pytest.raises(ModelError, match="Q4_K cannot be written here; what can: F32, F16, BF16, Q8_0, Q4_0"):
        from_floats(np.zeros((1, 256), dtype=np.float32), "Q4_K")

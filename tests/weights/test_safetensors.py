"""Files that are whole, cut short, or broken on purpose: the message names the file and what is wrong."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from magistral.errors import ModelError
from magistral.weights.safetensors import header_bytes, read_header

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1.5, -2.0], dtype=np.float16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file({"a": A, "b": B}, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def with_header(path: Path, header: object, data: bytes = bytes(24)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


def test_a_file_of_the_library_is_read_as_it_was_written(file: Path) -> None:
    found = read_header(file)
    assert found["a"].floats().tolist() == A.tolist()
    assert found["b"].floats().tolist() == B.tolist()
    assert found["b"].kind == "F16"


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    header = header_bytes({"a": ("F32", (2, 3)), "b": ("F16", (2,))})
    assert len(header) % 8 == 0
    (tmp_path / "m.safetensors").write_bytes(header + A.tobytes() + B.tobytes())
    found = load_file(tmp_path / "m.safetensors")
    assert {name: value.tolist() for name, value in found.items()} == {"a": A.tolist(), "b": B.tolist()}


@pytest.mark.parametrize("n", [0, 1, 7, 8, 20, -1, -12])
def test_a_file_cut_short_is_named(file: Path, n: int) -> None:
    file.write_bytes(file.read_bytes()[:n])
    with pytest.raises(ModelError, match=r"m\.safetensors.*(no whole safetensors file|no JSON|cut short)"):
        read_header(file)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"{", "its header is no JSON"),
        (b"[" * 100_000, "its header is no JSON"),
        (b"\xff\xfe", "its header is no JSON"),
        ([], "names no tensors"),
        ({"a": []}, "entry of 'a' is broken"),
        (entry(shape=[2, -3]), "entry of 'a' is broken"),
        (entry(shape=[2, 1.5]), "entry of 'a' is broken"),
        (entry(shape=[True, 6]), "entry of 'a' is broken"),
        (entry(data_offsets=[0]), "entry of 'a' is broken"),
        (entry(data_offsets=[-24, 0]), "entry of 'a' is broken"),
        (entry(shape=[2**40, 2**40]), "does not fill the 24 bytes"),
        (entry(shape=[]), "does not fill"),
        (entry(data_offsets=[0, 12]), "does not fill the 12 bytes"),
        (entry(data_offsets=[12, 36]), "cut short: .* bytes, and a ends at"),
        (entry(dtype="F8_E4M3"), "type 'F8_E4M3'; what is covered in such files: F32, F16, BF16"),
        (entry() | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, "b overlaps another tensor"),
    ],
    ids=[
        *("cut JSON", "a tower of brackets", "no UTF-8", "a list", "an entry of another form", "a negative size", "half a row"),
        *("a truth value", "one offset", "a place before the file", "a size beyond all memory", "no size", "too few bytes"),
        *("a place beyond the file", "a type that is not covered", "two tensors on one place"),
    ],
)
def test_a_broken_header_is_an_error_that_says_what(tmp_path: Path, header: object, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_header(with_header(tmp_path / "m.safetensors", header))


def test_a_header_longer_than_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="no whole safetensors file"):
        read_header(tmp_path / "m.safetensors")


def test_a_file_that_shrinks_after_it_was_opened_is_an_error(file: Path) -> None:
    tensor = read_header(file)["a"]
    file.write_bytes(file.read_bytes()[: tensor.offset + 20])
    with pytest.raises(ModelError, match="ends in the middle of a"):
        tensor.floats()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=6), cut=st.integers(0, 300))
def test_no_damage_does_more_than_raise_a_model_error(file: Path, places: list[tuple[int, int]], cut: int) -> None:
    whole = bytearray(file.read_bytes())
    for place, value in places:
        whole[place % len(whole)] = value
    broken = file.with_name("broken.safetensors")
    broken.write_bytes(whole[: len(whole) - cut % 40])
    with contextlib.suppress(ModelError):
        for tensor in read_header(broken).values():
            assert tensor.floats().shape == tensor.shape

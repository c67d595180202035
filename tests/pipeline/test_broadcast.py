from __future__ import annotations

import pytest
import torch

pytest.importorskip("xxhash", reason="needs the extra `ray`")

from magistral.pipeline.broadcast import Arrays, OtherWeights, Seal, pack, unpack


def tensors() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, 3), "c": torch.tensor(1.0)}


def test_what_is_packed_comes_out_to_the_bit_and_without_a_copy() -> None:
    sent = tensors()
    seal, arrays = pack(sent, 7)
    assert seal.version == 7
    got = unpack(arrays, seal)
    assert all(torch.equal(got[name], tensor) for name, tensor in sent.items())
    assert got["a"].data_ptr() == sent["a"].data_ptr()


def one_bit(arrays: Arrays) -> None:
    arrays["a"].view("uint32")[0, 1] ^= 1


def exchanged(arrays: Arrays) -> None:
    arrays["a"], arrays["b"] = arrays["b"], arrays["a"]


def reshaped(arrays: Arrays) -> None:
    arrays["a"] = arrays["a"].reshape(3, 2)


def missing(arrays: Arrays) -> None:
    del arrays["b"]


@pytest.mark.parametrize("damage", [one_bit, exchanged, reshaped, missing])
def test_other_bytes_than_were_sent_are_refused(damage: object) -> None:
    seal, arrays = pack(tensors(), 7)
    assert callable(damage)
    damage(arrays)
    with pytest.raises(OtherWeights, match="version 7 have the checksum"):
        unpack(arrays, seal)


def test_the_seal_is_the_same_on_every_machine() -> None:
    assert pack({"w": torch.zeros(2)}, 1)[0] == Seal(1, "bd772af75f6f03cf40a219c7a9c2178d")

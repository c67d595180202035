"""Compiled passes against torch, and the model off the CPU against the one on it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from magistral.engines.native import engine as native
from magistral.engines.native import kernels
from magistral.engines.native.plain import Plain
from magistral.errors import UserError
from tests.engines.native import Tiny, ask, finish, new_engine, same, write
from tests.engines.test_native import VARIANTS


def test_exponentials_are_off_by_a_few_units_in_the_last_place() -> None:
    x = np.linspace(-80, 80, 10_001, dtype=np.float32)
    found = x.copy()
    kernels.exponentials(found)
    assert np.allclose(found, np.exp(x.astype(np.float64)), rtol=1e-5, atol=0)
    near_0 = np.abs(x) < 1
    assert np.allclose(found[near_0], np.exp(x[near_0].astype(np.float64)), rtol=3e-7, atol=0)


def test_exponentials_beyond_what_a_float_holds_neither_overflow_nor_hide_what_is_not_a_number() -> None:
    x = np.array([-np.inf, -1000, 1000, np.nan], np.float32)
    kernels.exponentials(x)
    assert x[:2] == pytest.approx([2**-126, 2**-126])
    assert x[2] == 2.0**126
    assert np.isnan(x[3])


FIRST_USE = """
import numba, torch
from magistral.engines.native import kernels
torch.set_num_threads(1)
kernels.use_torch_threads()
print(torch.get_num_threads(), numba.get_num_threads())
"""


def test_torch_keeps_to_its_threads_when_numba_starts_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("whole", [True, False])
def test_the_gate_is_silu(whole: bool) -> None:
    both, scale = torch.randn(5, 14) * 4, torch.rand(5) + 0.5
    out, scales = np.empty((5, 7), np.float32), scale.numpy().copy()
    kernels.gated(both.numpy(), scales, whole, out)
    gate, up = (both * scale[:, None]).chunk(2, dim=-1)
    expected = F.silu(gate) * up
    if whole:
        assert torch.allclose(torch.from_numpy(out), expected, rtol=1e-5, atol=1e-6)
    else:
        assert scales == pytest.approx(expected.abs().amax(-1).numpy(), rel=1e-5)
        assert torch.allclose(torch.from_numpy(out * scales[:, None]), expected, rtol=1e-5, atol=1e-6)


def test_a_row_of_zeros_stays_one() -> None:
    x = np.zeros((1, 4), np.float32)
    kernels.rows_in_parts(x, np.ones(1, np.float32))
    assert x.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_model_off_the_cpu_writes_the_same(changes: dict[str, object], tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(**changes)
    requests = [
        ask(*range(20), seeds=(1, 2), key="a", n=20),
        ask(*[5, 6, 7, 8] * 4, key="b", temperature=0.0, draft=3, n=20),
        ask(3, key="c"),
    ]
    on_cpu = write(model, *requests)

    monkeypatch.setattr(native, "Quick", lambda model, form: Plain(model))
    assert all(same(a, b) for a, b in zip(write(model, *requests), on_cpu, strict=True))


def test_the_model_off_the_cpu_takes_new_weights(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tiny(seed=2)
    (expected,) = write(new, ask(5, 9, 2))
    monkeypatch.setattr(native, "Quick", lambda model, form: Plain(model))
    engine = new_engine(tiny(seed=1))
    engine.load(dict(new.named_parameters()), version=1)
    engine.submit(ask(5, 9, 2))
    assert same(finish(engine)[0], expected)


def test_8_bit_weights_off_the_cpu_are_refused(tiny: Tiny) -> None:
    with pytest.raises(UserError, match='weights="int8" is for a CPU'):
        new_engine(tiny().to("meta"), weights="int8")

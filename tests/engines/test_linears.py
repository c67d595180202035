"""Weights held in other forms than the trainer's."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from torch import Tensor

from magistral.engines.native.cache import Cache, Span, grown
from magistral.engines.native.engine import NativeEngine
from magistral.engines.native.linears import Form, Int8Matrix
from magistral.engines.native.smooth import factors_of
from tests.engines.native import Tiny, ask, finish, full_logprobs, new_engine


def engine_logprobs(engine: NativeEngine, tokens: Tensor) -> Tensor:
    """[T, V] after each of the tokens [1, T]."""
    n = tokens.shape[1]
    cache = Cache(engine.sizes, 1, grown(n), device=tokens.device)
    cache.reserve(1, n)
    with torch.inference_mode():
        return engine.model.logits(tokens[0].tolist(), [Span(0, 0, n)], cache, range(n)).log_softmax(-1)


@pytest.mark.parametrize("changes", [{}, {"family": "qwen2", "attention_bias": True}], ids=["llama", "with biases"])
def test_8_bit_weights_are_near_float_and_new_ones_are_packed_again(changes: dict[str, object], tiny: Tiny) -> None:
    old, new = tiny(seed=1, **changes), tiny(seed=2, **changes)
    tokens = torch.arange(40)[None]
    engine = new_engine(old, weights="int8")
    for model in (old, new):
        if model is new:
            engine.load(dict(new.named_parameters()), version=1)
        exact, rounded = engine_logprobs(new_engine(model), tokens), engine_logprobs(engine, tokens)
        kl = (exact.exp() * (exact - rounded)).sum(-1).mean()
        assert 0 < kl < 0.01
    again = new_engine(old, weights="int8")
    again.load(dict(new.named_parameters()), version=1)
    assert torch.equal(engine_logprobs(engine, tokens), engine_logprobs(again, tokens))


def test_channels_moved_into_the_weights_that_read_them_leave_the_model_as_it_was(tiny: Tiny) -> None:
    model = tiny(seed=1, family="qwen3", qk_norm=True, tied=False)
    tokens = torch.arange(40)[None]
    before = engine_logprobs(new_engine(model), tokens)
    with torch.no_grad():
        for name, factors in factors_of(model).items():
            weight = model.get_parameter(name)
            for factor in factors:
                weight.mul_(factor)
    assert torch.allclose(engine_logprobs(new_engine(model), tokens), before, atol=1e-4)


def test_channels_that_are_large_everywhere_do_not_drown_the_rest_in_8_bits(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(seed=1, tied=False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("layernorm.weight") or name == "norm.weight":
                weight[:2] *= 100
            elif name.endswith(
                ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight", "head.weight")
            ):
                weight[:, :2] /= 100
    tokens = torch.arange(40)[None]
    exact = engine_logprobs(new_engine(model), tokens)

    def cost() -> float:
        rounded = engine_logprobs(new_engine(model, weights="int8"), tokens)
        return float((exact.exp() * (exact - rounded)).sum(-1).mean())

    smooth = cost()
    monkeypatch.setattr("magistral.engines.native.quick.factors_of", lambda _: {})
    assert smooth < 0.01 < 0.1 < cost()


def test_what_8_bit_weights_record_is_near_what_float_would(tiny: Tiny) -> None:
    model = tiny(seed=3)
    engine = new_engine(model, weights="int8")
    engine.submit(ask(5, 9, 2, seeds=(1, 2, 3, 4), n=40))
    gaps = []
    for written in finish(engine):
        exact = full_logprobs(model, written)[torch.arange(len(written.tokens)), torch.tensor(written.tokens)]
        gaps += (exact - torch.tensor(written.logprobs)).abs().tolist()
    assert 0 < fmean(gaps) < 0.08
    assert max(gaps) < 0.5


def test_8_bit_weights_stand_a_prompt_whose_first_token_has_huge_activations() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 8, bias=False)
    x = torch.randn(1, 5, 64)
    x[:, 0] *= 1000
    scale = x.abs().amax(-1, keepdim=True)
    with torch.no_grad():
        exact, rounded = linear(x), Int8Matrix(linear.weight).product(x / scale) * scale
    assert float((exact - rounded)[:, 1:].abs().max()) < 0.05


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_new_numbers_for_one_of_several_matrices_that_are_multiplied_as_one(weights: Form, tiny: Tiny) -> None:
    sizes = {"family": "qwen2", "attention_bias": True, "dim": 256, "hidden_dim": 320}  # large enough to be packed
    old, new = tiny(seed=1, **sizes), tiny(seed=2, **sizes)
    changed = {n: p for n, p in new.named_parameters() if n.endswith(("q_proj.weight", "v_proj.bias", "up_proj.weight"))}
    engine, whole = new_engine(old, weights=weights), new_engine(old, weights=weights)
    engine.submit(ask(1, 2, n=3))
    finish(engine)
    engine.load(changed, version=1)
    old.load_state_dict(changed, strict=False)
    whole.load(dict(old.named_parameters()), version=1)
    tokens = torch.arange(40)[None]
    expected = engine_logprobs(whole, tokens)
    assert torch.allclose(engine_logprobs(engine, tokens), expected, atol=1e-4)
    assert len(changed) == 6


def test_the_matrices_of_the_trainer_are_not_the_engine_s(tiny: Tiny) -> None:
    model = tiny(seed=1, tied=False)
    engine = new_engine(model)
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    tokens = torch.arange(40)[None]
    expected = engine_logprobs(new_engine(tiny(seed=1, tied=False)), tokens)
    assert torch.equal(engine_logprobs(engine, tokens), expected)

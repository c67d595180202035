"""What the native engine's tests share: a tiny engine, short requests, and plain forward passes to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from magistral.engines.base import Request, Written
from magistral.engines.native.engine import NativeEngine
from magistral.models.transformer import Masked, Transformer

EOS = 63
Tiny = Callable[..., Transformer]


def new_engine(model: Transformer, *, n_slots: int = 4, eos: int = EOS, **settings: Any) -> NativeEngine:
    return NativeEngine(model, eos, n_slots=n_slots, window=128, decode=letters, **settings)


def letters(tokens: Sequence[int]) -> str:
    """Token 0 is "@", 1 is "A", and so on."""
    return "".join(chr(64 + token) for token in tokens)


def finish(engine: NativeEngine) -> list[Written]:
    done: list[Written] = []
    while not engine.idle:
        done += engine.step()
    return sorted(done, key=lambda w: (str(w.request.key), w.index))


def count_tokens(engine: NativeEngine) -> list[int]:
    """Of each pass through the model, as they come."""
    counts: list[int] = []
    own = engine.model.logits

    def logits(tokens: Sequence[int], *rest: Any) -> Tensor:
        counts.append(len(tokens))
        return own(tokens, *rest)

    engine.model.logits = logits  # type: ignore[method-assign, assignment]
    return counts


def write(model: Transformer, *requests: Request, **settings: Any) -> list[Written]:
    engine = new_engine(model, **settings)
    for request in requests:
        engine.submit(request)
    return finish(engine)


def ask(*prompt: int, seeds: tuple[int, ...] = (0,), n: int = 12, key: str = "", **terms: Any) -> Request:
    return Request(prompt=prompt, seeds=seeds, max_tokens=n, key=key, **terms)


def full_logprobs(model: Transformer, written: Written, temperature: float = 1.0) -> Tensor:
    """[T, V] before each written token, by one pass over the whole sequence."""
    tokens = torch.tensor([[*written.request.prompt, *written.tokens]])
    with torch.no_grad():
        hidden = model(tokens, torch.arange(tokens.shape[1])[None], Masked())
        logits: Tensor = model.lm_head(hidden[0, len(written.request.prompt) - 1 : -1])
    return (logits / temperature).log_softmax(-1)


def same(one: Written, other: Written) -> bool:
    return one.tokens == other.tokens and one.logprobs == pytest.approx(other.logprobs, abs=1e-4) and one.finish == other.finish

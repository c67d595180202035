"""Two thousand completions under random cancels, forced tokens, stops and new weights: nothing leaks and no token is wrong."""

from __future__ import annotations

import random
from typing import Any

import pytest

from magistral.engines.base import Request, Written
from magistral.engines.native.engine import NativeEngine
from magistral.models.transformer import Transformer
from tests.engines.native import Tiny, finish, letters, same

WINDOW, EOS = 64, 63


def new(model: Transformer, *, prefix_mb: int = 1) -> NativeEngine:
    return NativeEngine(model, EOS, n_slots=24, window=WINDOW, prefix_mb=prefix_mb, decode=letters)


def random_request(choose: random.Random, key: int) -> Request:
    prompt = tuple(choose.choices(range(60), k=choose.choice((1, 3, 8))))
    if choose.random() < 0.5:  # some begin alike
        prompt = (*range(33), *prompt)
    terms: dict[str, Any] = choose.choice(
        ({}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"draft": 3})
    )
    stops: dict[str, Any] = choose.choice(({}, {}, {"stop": ("AB", "X")}, {"stop_tokens": (7,)}))
    seeds = tuple(choose.randrange(2**40) for _ in range(choose.choice((1, 1, 2, 5))))
    return Request(prompt=prompt, seeds=seeds, max_tokens=choose.randint(1, 20), key=key, **terms, **stops)


def replayed(engine: NativeEngine, written: Written) -> Written:
    """The same completion alone, told the same tokens at the same places."""
    request = written.request
    changes = {name: getattr(request, name) for name in ("temperature", "top_p", "top_k", "min_p", "stop", "stop_tokens")}
    engine.submit(
        Request(prompt=request.prompt, seeds=(request.seeds[written.index],), max_tokens=request.max_tokens, key=0, **changes)
    )
    for place in written.forced:
        while not engine.idle and sum(len(w.tokens) for w in engine.partial()) < place:
            engine.step()
        engine.force(0, 0, written.tokens[place : place + 1])
    return finish(engine)[0]


@pytest.mark.slow  # half a minute
def test_a_soak(tiny: Tiny) -> None:
    choose = random.Random(5)
    models = [tiny(seed=i) for i in range(4)]
    engine = new(models[0])
    done: list[Written] = []
    n_asked = n_cancelled = key = 0
    while n_asked < 2000 or not engine.idle:
        while n_asked < 2000 and len(engine.partial()) < 24 and choose.random() < 0.9:
            request = random_request(choose, key)
            engine.submit(request)
            key, n_asked = key + 1, n_asked + len(request.seeds)
        done += engine.step()
        if engine.partial() and choose.random() < 0.15:
            victim = choose.choice(engine.partial())
            index = choose.choice((None, victim.index))
            n = sum(w.request.key == victim.request.key for w in done)
            engine.cancel(victim.request.key, index)
            n_cancelled += 1 if index is not None else len(victim.request.seeds) - n
        if engine.partial() and choose.random() < 0.15:
            told = choose.choice(engine.partial())
            engine.force(told.request.key, told.index, choose.choices(range(62), k=choose.randint(1, 4)))
        if choose.random() < 0.02:
            version = engine.version + 1
            engine.load(dict(models[version % 4].named_parameters()), version)
    assert len(done) + n_cancelled >= 2000 > len(done) > 1000
    assert not engine.partial()
    assert engine.prefixes.n_held <= engine.prefixes.n_places
    assert engine.cache.keys.shape[1] <= 24
    whole = [w for w in done if len(set(w.versions)) == 1]
    assert len(whole) > 500
    assert sum(bool(w.forced) for w in whole) > 50
    alone = [new(model, prefix_mb=0) for model in models]
    for written in whole:
        assert same(written, replayed(alone[written.versions[0] % 4], written)), written

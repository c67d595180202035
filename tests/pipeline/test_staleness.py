"""At n_async = n_batch the asynchronous loop is the synchronous loop, bit for bit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch

from magistral.engines.base import Request
from magistral.engines.native.engine import NativeEngine
from magistral.flow import Completion, Scored
from magistral.models.sizes import Sizes
from magistral.models.transformer import new_transformer
from magistral.pipeline.curriculum import Curriculum, seed_of
from magistral.pipeline.growing import Desk, completion_of
from magistral.pipeline.learner import Learner
from magistral.pipeline.ledger import Ledger
from magistral.pipeline.roles import Roles
from magistral.pipeline.runtime_inline import InlineGenerator, InlineVerifier
from magistral.text.tokens import byte_tokenizer
from magistral.trainer.trainer import Trainer
from tests.pipeline.fakes import RL, drive, pace, scored
from tests.pipeline.test_ledger import PROBLEMS

SIZES = Sizes(
    family="llama", n_words=40, dim=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=32, norm_eps=1e-5,
    rope_theta=10000.0, window=64, tied=True,
)  # fmt: skip


class Run:
    """A fresh engine, trainer and ledger; equal every time."""

    def __init__(self) -> None:
        model = new_transformer(SIZES, seed=1)
        self.engine = NativeEngine(model, eos=0, n_slots=8, window=64)
        self.trainer = Trainer(model, RL, seed=0)
        self.learner = Learner(self.trainer, byte_tokenizer(), minibatches=1)
        self.ledger = Ledger(Curriculum(PROBLEMS, RL, seed=5))
        self.texts: list[tuple[int, ...]] = []

    def score(self, c: Completion) -> Scored:
        """Some reward that differs within a group and depends on what was written."""
        self.texts.append(c.tokens)
        return scored(c, c.index + seed_of(*c.tokens) % 1000 / 1000)


def prompt(problem: object) -> tuple[int, ...]:
    return tuple(5 + seed_of(str(problem)) // 40**i % 30 for i in range(4))


def decode(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def asynchronous() -> Run:
    r = Run()
    generator = InlineGenerator(r.engine, Desk(prompt, decode, temperature=RL.temperature))
    at = pace(per_batch=2, in_flight=2, steps=RL.steps)
    drive(Roles(generator, InlineVerifier(r.score), r.learner), at=at, curriculum=r.ledger)
    return r


def synchronous() -> Run:
    r = Run()
    for version in range(1, RL.steps + 1):
        asked = {a.ordinal: a for a in (next(r.ledger), next(r.ledger))}
        for a in asked.values():
            r.engine.submit(Request(prompt=prompt(a.problem), seeds=a.seeds, max_tokens=RL.max_tokens, key=a.ordinal))
        written = []
        while not r.engine.idle:
            written += r.engine.step()
        completions = [completion_of(w, asked[o].problem, o, decode) for o in asked for w in written if w.request.key == o]
        completions.sort(key=lambda c: (c.group, c.index))
        groups = [[r.score(c) for c in completions if c.group == o] for o in sorted(asked)]
        r.engine.load(asyncio.run(r.learner.step(groups, version)).weights, version)
    return r


def test_staleness_zero_equals_the_synchronous_loop_bit_for_bit() -> None:
    one, two = asynchronous(), synchronous()
    assert sorted(one.texts) == sorted(two.texts)
    for (name, a), (_, b) in zip(one.trainer.all_weights(), two.trainer.all_weights(), strict=True):
        assert torch.equal(a, b), name
    start = dict(new_transformer(SIZES, seed=1).named_parameters())
    assert any(not torch.equal(w, start[name]) for name, w in one.trainer.all_weights())  # it did learn


def test_the_same_run_twice_is_the_same_bit_for_bit() -> None:
    one, two = asynchronous(), asynchronous()
    assert one.texts == two.texts
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one.trainer.all_weights(), two.trainer.all_weights(), strict=True))

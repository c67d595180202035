"""How busy the engine is while code is judged: SmolLM2-135M writes for a curation, for a distillation, for a recipe's eval.

    python benchmarks/busy.py [--problems N] [--n N] [--tokens N]

What it writes is thrown away and a program put in its place, which the box runs on 20 tests: so the writing is real, and so is
the judging. `engine_busy` is the share of the time until its last completion that the engine spent in its own steps; a judging in
the same thread would leave `engine_busy_inline` of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from common import load_average, versions, write_results
from torch import Tensor

from magistral import __version__
from magistral.curation.candidate import Candidate
from magistral.curation.difficulty import Grader
from magistral.curation.distill import Distiller
from magistral.curation.traces import Sieve
from magistral.engines.ask import Asker
from magistral.engines.base import Request, Written
from magistral.engines.native.engine import NativeEngine
from magistral.eval.run import ask_and_judge
from magistral.models.load import load_model
from magistral.pipeline.growing import completion_of
from magistral.recipe import RewardWeights
from magistral.recipe_data import Asked, Distill
from magistral.rewards.total import Scorer
from magistral.text.tokens import Tokenizer
from magistral.verifiers.judges import Judges

R = TypeVar("R")
N_SLOTS = 32
TEXT = "<think>\nRead the number, double it, write it.\n</think>\n```python\nprint(2 * int(input()))\n```"
TESTS = json.dumps({"tests": [{"stdin": f"{n}\n", "expected": str(2 * n)} for n in range(20)]})


class Timed:
    """The engine, and when it worked."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine = engine
        self.start = self.end = time.perf_counter()
        self.busy_s = 0.0
        self.version = 0

    @property
    def idle(self) -> bool:
        return self.engine.idle

    def submit(self, request: Request) -> None:
        self.engine.submit(request)

    def cancel(self, key: Hashable) -> None:
        self.engine.cancel(key)

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        self.engine.load(weights, version)

    def step(self) -> list[Written]:
        before = time.perf_counter()
        written = self.engine.step()
        self.end = time.perf_counter()
        self.busy_s += self.end - before
        return written


class Clock:
    """Seconds inside a function, over all threads."""

    def __init__(self) -> None:
        self.seconds, self.n, self._lock = 0.0, 0, threading.Lock()

    def timed(self, function: Callable[..., R]) -> Callable[..., R]:
        def inside(*args: Any, **kwargs: Any) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self.seconds += time.perf_counter() - start
                    self.n += 1

        return inside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--n", type=int, default=8, help="completions of each")
    parser.add_argument("--tokens", type=int, default=128, help="the longest completion")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model("smollm2")
    engine = NativeEngine(model, tokenizer.eos, n_slots=N_SLOTS, window=512, weights="int8")
    problems = [
        Candidate(id=f"p{i}", question=f"Read a number and double it, in way {i}.", reference=TESTS, kind="code")
        for i in range(args.problems)
    ]
    found = {}
    for name, path in (("curate", curate), ("distill", distill), ("eval", evaluate)):
        clock, timed = Clock(), Timed(engine)
        path(problems, timed, tokenizer, args, clock)
        whole, wall = time.perf_counter() - timed.start, timed.end - timed.start
        found[name] = {
            "engine_busy": round(timed.busy_s / wall, 4),
            "engine_busy_inline": round(timed.busy_s / (timed.busy_s + clock.seconds), 4),
            "judged": clock.n, "judging_s": round(clock.seconds, 1), "engine_s": round(timed.busy_s, 1),
            "seconds_to_last_completion": round(wall, 1), "seconds": round(whole, 1),
        }  # fmt: skip
        print(name, found[name])
    write_results(
        "busy",
        {
            "versions": {**versions("torch"), "open-magistral": __version__},
            "load_average": load_average(),
            "model": "SmolLM2-135M-Instruct, int8",
            "seed": 0,
            "threads": 1,
            "n_slots": N_SLOTS,
            **vars(args),
            **found,
        },
    )


def asker(engine: Timed, tokenizer: Tokenizer, args: argparse.Namespace) -> Asker:
    def request(question: str, seeds: tuple[int, ...], key: Hashable) -> Request:
        return Request(prompt=tuple(tokenizer.encode(question)), seeds=seeds, max_tokens=args.tokens, temperature=0.7, key=key)

    return Asker(engine, request=request, text=lambda _: TEXT, seed=lambda _, place: place, n_parallel=N_SLOTS)


def curate(problems: list[Candidate], engine: Timed, tokenizer: Tokenizer, args: argparse.Namespace, clock: Clock) -> None:
    with Judges() as judges, tempfile.TemporaryDirectory() as scratch:
        judges.verify = clock.timed(judges.verify)  # type: ignore[method-assign]
        grader = Grader(asker(engine, tokenizer, args), judges, n=args.n)
        assert all(v is not None and v.pass_rate == 1 for _, v in grader.grade(iter(problems), Path(scratch)))


def distill(problems: list[Candidate], engine: Timed, tokenizer: Tokenizer, args: argparse.Namespace, clock: Clock) -> None:
    settings = Distill(teacher=Asked(model="smollm2", max_tokens=args.tokens), licence="Apache-2.0", n_completions=args.n)
    with Scorer(RewardWeights(l_max=512, l_cache=100)) as scorer, tempfile.TemporaryDirectory() as scratch:
        sieve = Sieve(settings, tokenizer.encode, teacher="smollm2", temperature=0.7)
        distiller = Distiller(sieve, asker(engine, tokenizer, args), clock.timed(scorer.score))
        distiller.distil([p.flow for p in problems], Path(scratch))


def evaluate(problems: list[Candidate], engine: Timed, tokenizer: Tokenizer, args: argparse.Namespace, clock: Clock) -> None:
    requests = [
        (p.flow, Request(
            prompt=tuple(tokenizer.encode(p.question)), seeds=tuple(range(args.n)), max_tokens=args.tokens, temperature=0.7,
            key=i,
        ))
        for i, p in enumerate(problems)
    ]  # fmt: skip
    with Scorer(RewardWeights(l_max=512, l_cache=100)) as scorer:
        score = clock.timed(scorer.score)
        ask_and_judge(
            engine, requests, lambda w, p, group: score(completion_of(w, p, group, lambda _: TEXT)), on_written=lambda _: None
        )


if __name__ == "__main__":
    main()

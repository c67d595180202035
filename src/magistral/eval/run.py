"""`magistral eval`: held-out problems in, completions, verdicts and scores out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from magistral.engines.base import Engine, Request, Written
from magistral.engines.beside import beside
from magistral.errors import RunFailed, VerifierFailed
from magistral.eval.scores import by_family, scores
from magistral.flow import Problem, Scored
from magistral.log import RunFolder, plain, write_atomically
from magistral.recipe import Recipe

Judge = Callable[[Written, Problem, int], Scored]
"""Of what was written, its problem and the ordinal of its group."""


def ask_and_judge(
    engine: Engine, requests: Sequence[tuple[Problem, Request]], judge: Judge, *, on_written: Callable[[int], None]
) -> tuple[list[Scored], int]:
    """All completions by group and index, judged beside the writing, and how many no verifier could judge.

    Raises RunFailed where nothing could be judged."""
    asked: dict[Hashable, tuple[Problem, int]] = {}
    """A request's key to its problem and the ordinal of its group."""
    for ordinal, (problem, request) in enumerate(requests):
        asked[request.key] = problem, ordinal
        engine.submit(request)

    def written() -> Iterator[Written]:
        while not engine.idle:
            done = engine.step()
            on_written(len(done))
            yield from done

    def judged(one: Written) -> Scored | None:
        try:
            return judge(one, *asked[one.request.key])
        except VerifierFailed:
            return None

    found = list(beside(written(), judged))
    kept = sorted((s for s in found if s is not None), key=lambda s: (s.completion.group, s.completion.index))
    if not kept:
        raise RunFailed(f"none of {len(found)} completions could be judged")
    return kept, len(found) - len(kept)


def run_eval(
    recipe: Recipe,
    engine: Engine,
    requests: Sequence[tuple[Problem, Request]],
    judge: Judge,
    folder: RunFolder,
    *,
    on_written: Callable[[int], None],
) -> dict[str, Any]:
    """Every problem `eval.n_runs` times. Completions that no verifier could judge are dropped and counted.

    Raises RunFailed where nothing could be judged."""
    start = time.perf_counter()
    judged, n_dropped = ask_and_judge(engine, requests, judge, on_written=on_written)
    folder.write_traces("eval", judged, step=0)
    result = {
        "model": folder.info()["model"],
        "n_problems": len(requests),
        "n_runs": recipe.eval.n_runs,
        "seed": recipe.seed,
        "seconds": time.perf_counter() - start,
        "dropped": n_dropped,
        "scores": scores(judged, recipe.eval.n_runs),
        "by_family": by_family(judged, recipe.eval.n_runs),
    }
    write_atomically(folder.path / "eval.json", json.dumps(plain(result), indent=1) + "\n")
    return result

"""`magistral eval`: held-out problems in, completions, verdicts and scores out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from magistral.engines.base import Engine, Request, Written
from magistral.errors import RunFailed, VerifierFailed
from magistral.eval.scores import by_family, scores
from magistral.flow import Problem, Scored
from magistral.log import RunFolder, plain, write_atomically
from magistral.recipe import Recipe


def run_eval(
    recipe: Recipe,
    engine: Engine,
    requests: Sequence[tuple[Problem, Request]],
    judge: Callable[[Written, Problem, int], Scored],
    folder: RunFolder,
    *,
    on_written: Callable[[int], None],
) -> dict[str, Any]:
    """`judge` is given what was written, its problem and the ordinal of its group.

    Every problem `eval.n_runs` times. Completions that no verifier could judge are dropped and counted.

    Raises RunFailed where nothing could be judged."""
    start = time.perf_counter()
    asked: dict[Hashable, tuple[Problem, int]] = {}
    """A request's key to its problem and the ordinal of its group."""
    for ordinal, (problem, request) in enumerate(requests):
        asked[request.key] = problem, ordinal
        engine.submit(request)
    judged: list[Scored] = []
    n_dropped = 0
    while not engine.idle:
        done = engine.step()
        for written in done:
            try:
                judged.append(judge(written, *asked[written.request.key]))
            except VerifierFailed:
                n_dropped += 1
        on_written(len(done))
    judged.sort(key=lambda s: (s.completion.group, s.completion.index))
    if not judged:
        raise RunFailed(f"none of {n_dropped} completions could be judged")
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

"""`magistral eval`: held-out problems in, completions, verdicts and scores out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from magistral.engines.base import Engine, Request, Written
from magistral.errors import RunFailed, VerifierFailed
from magistral.eval.scores import by_family, scores
from magistral.flow import Completion, Problem, Scored
from magistral.log import RunFolder, write_atomically
from magistral.recipe import Recipe


def run_eval(
    recipe: Recipe,
    engine: Engine,
    requests: Sequence[tuple[Problem, Request]],
    complete: Callable[[Written, Problem], Completion],
    score: Callable[[Completion], Scored],
    folder: RunFolder,
    *,
    on_written: Callable[[int], None],
) -> dict[str, Any]:
    """Every problem `eval.n_runs` times. Completions that no verifier could judge are dropped and counted.

    Raises RunFailed where nothing could be judged."""
    start = time.perf_counter()
    problems: dict[Hashable, Problem] = {request.key: problem for problem, request in requests}
    for _, request in requests:
        engine.submit(request)
    completions = []
    while not engine.idle:
        done = engine.step()
        completions += [complete(w, problems[w.request.key]) for w in done]
        on_written(len(done))
    completions.sort(key=lambda c: (c.group, c.index))
    judged, n_dropped = [], 0
    for completion in completions:
        try:
            judged.append(score(completion))
        except VerifierFailed:
            n_dropped += 1
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
    write_atomically(folder.path / "eval.json", json.dumps(_plain(result), indent=1) + "\n")
    return result


def _plain(value: Any) -> Any:
    """Infinity is no JSON: an open bound is null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

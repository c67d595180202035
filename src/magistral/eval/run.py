"""`magistral eval RECIPE`: held-out problems in, completions, verdicts and scores out.

written.jsonl   each completion the moment it is finished, so that a killed run asks for nothing twice; gone when all is judged
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from magistral.engines.base import Begun, Engine, Request, Written
from magistral.engines.beside import beside
from magistral.errors import RunFailed, VerifierFailed
from magistral.eval.ask import Key
from magistral.eval.scores import by_family, scores
from magistral.eval.store import Lines
from magistral.flow import Problem, Scored
from magistral.log import RunFolder, plain, write_atomically
from magistral.recipe import Recipe

Judge = Callable[[Written, Problem, int], Scored]
"""Of what was written, its problem and the ordinal of its group."""


def ask_and_judge(
    engine: Engine, requests: Sequence[tuple[Problem, Request]], judge: Judge, *, on_written: Callable[[Sequence[Written]], None]
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
            on_written(done)
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
    file = folder.path / "written.jsonl"
    with Lines(file) as kept:
        known = {(row["problem_id"], row["index"]): _begun(row) for row in kept}
        asked = {request.key: problem.id for problem, request in requests}

        def keep(done: Sequence[Written]) -> None:
            for one in done:
                name = asked[one.request.key], one.index
                if name not in known:
                    kept.add(_row(name, one))
            on_written(len(done))

        left = [(problem, _going_on(problem, request, known)) for problem, request in requests]
        judged, n_dropped = ask_and_judge(engine, left, judge, on_written=keep)
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
    file.unlink()
    return result


def _going_on(problem: Problem, request: Request, known: Mapping[Key, Begun]) -> Request:
    """The request with what is known of its completions: the engine gives those back at once."""
    begun = tuple(known.get((problem.id, i), Begun()) for i in range(len(request.seeds)))
    return replace(request, begun=begun) if any(b.tokens for b in begun) else request


def _row(name: Key, one: Written) -> dict[str, Any]:
    return {
        "problem_id": name[0], "index": name[1], "tokens": one.tokens, "logprobs": one.logprobs, "versions": one.versions,
    }  # fmt: skip


def _begun(row: Mapping[str, Any]) -> Begun:
    return Begun(tokens=tuple(row["tokens"]), logprobs=tuple(row["logprobs"]), versions=tuple(row["versions"]))

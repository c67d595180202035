"""Which completions a benchmark asks for: each problem `n_runs` times, each time with a seed of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from magistral.eval.protocol import instruction
from magistral.flow import Problem
from magistral.verifiers.choice import LETTERS, ask, read_key

Key = tuple[str, int]
"""(problem's id, index): the name of one completion, in every file of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    problem: Problem
    """As it is asked: of a choice, with its options in this completion's own order."""
    index: int
    """Of the run, 0-based."""
    seed: int
    canary: str = ""
    """What marks its text as test data that nobody may train on, where its benchmark has such a mark."""

    @property
    def key(self) -> Key:
        return self.problem.id, self.index

    @property
    def question(self) -> str:
        p = self.problem
        return f"{p.question}\n\n{instruction(p.kind, p.language, p.family)}"


def plan(
    problems: Sequence[Problem], n_runs: int, seed_of: Callable[[str, int], int], done: Collection[Key] = ()
) -> Iterator[Asked]:
    """All that is not `done`, in order. A seed comes of a problem's id, so it stays when problems are shuffled or left out."""
    for problem in problems:
        for index in range(n_runs):
            if (problem.id, index) not in done:
                seed = seed_of(problem.id, index)
                yield Asked(problem=_in_order(problem, seed), index=index, seed=seed, canary=_canary(problem))


def groups(asked: Iterator[Asked], n_at_once: int) -> Iterator[list[Asked]]:
    """Neighbours with the same question, at most `n_at_once`: an engine reads their prompt once."""
    group: list[Asked] = []
    for one in asked:
        if group and (len(group) == n_at_once or one.problem.question != group[0].problem.question):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def data_hash(problems: Sequence[Problem]) -> str:
    """Of ids, questions and references, whatever their order."""
    each = sorted(hashlib.sha256(repr((p.id, p.question, p.reference)).encode()).digest() for p in problems)
    return hashlib.sha256(b"".join(each)).hexdigest()[:16]


def selected(problems: Sequence[Problem], n: int, seed: int) -> list[Problem]:
    """`n` of them: the same ones for a seed, whatever their order; in the order that they have."""
    ranked = sorted(problems, key=lambda p: hashlib.sha256(f"{seed}/{p.id}".encode()).digest())
    kept = {p.id for p in ranked[:n]}
    return [p for p in problems if p.id in kept]


def _in_order(problem: Problem, seed: int) -> Problem:
    if problem.kind != "choice":
        return problem
    key, options = read_key(problem.reference)
    if not options:
        return problem  # a bare letter: the options stand in the question
    right = options[LETTERS.index(key)]
    return ask(replace(problem, reference=right), options, seed=seed)


def _canary(problem: Problem) -> str:
    try:
        data = json.loads(problem.reference) if problem.kind == "choice" else None
    except ValueError:
        data = None
    return str(data.get("canary", "")) if isinstance(data, dict) else ""

"""Problems made by rule, as many as one likes, from the package reasoning-gym (arXiv 2505.24760)."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, cast

from magistral.curation.sources.base import SOURCES
from magistral.errors import RecipeError
from magistral.flow import Problem
from magistral.recipe import Family, Problems
from magistral.registry import nearest

DRAWS_PER_PROBLEM = 10
"""chosen: a family of K problems shows 99 % of them in 5 K draws, so this many are enough for all but its rarest."""
DRAWS_AT_LEAST = 1000

OURS = ("seed", "size")
"""Options of every family that the recipe says elsewhere."""


def _expression(item: dict[str, Any]) -> str:
    return f"{item['metadata']['expression']} = ?"


WORDINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "basic_arithmetic": _expression,
    "chain_sum": _expression,
    "products": _expression,
}
"""Shorter questions than the package's own, since each token of a prompt is paid for in every completion."""


@SOURCES.register("reasoning_gym")
def problems(wanted: Problems) -> tuple[list[Problem], list[Problem]]:
    """Families by weight, shuffled. The held-out problems are drawn first, so that they stay the same when n_train changes."""
    shares = [family.weight for family in wanted.families]
    n_held_out = apportion(wanted.n_held_out, shares)
    n_train = apportion(wanted.n_train, shares)
    draws = [
        _Draws(family, seed=_seed(wanted.seed, place, family.name), n_wanted=n_held_out[place] + n_train[place])
        for place, family in enumerate(wanted.families)
    ]
    seen: set[str] = set()
    ordinals: Counter[str] = Counter()
    held_out = [problem for d, n in zip(draws, n_held_out, strict=True) for problem in d.take(n, seen, ordinals)]
    train = [problem for d, n in zip(draws, n_train, strict=True) for problem in d.take(n, seen, ordinals)]
    Random(_seed(wanted.seed, "held out")).shuffle(held_out)
    Random(_seed(wanted.seed, "train")).shuffle(train)
    return train, held_out


def apportion(n: int, weights: list[float]) -> list[int]:
    """`n` in whole parts near to `weights`, by largest remainder, the earlier in a tie: apportion(5, [1, 1]) is [3, 2]."""
    exact = [n * weight / sum(weights) for weight in weights]
    parts = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: parts[i] - exact[i])
    for i in by_remainder[: n - sum(parts)]:
        parts[i] += 1
    return parts


class _Draws:
    """The problems of one family in the order in which its generator makes them, none twice."""

    def __init__(self, family: Family, *, seed: int, n_wanted: int) -> None:
        self._family = family
        self._n_wanted = n_wanted
        self._n_draws = DRAWS_PER_PROBLEM * n_wanted + DRAWS_AT_LEAST
        self._items = _items(family, seed=seed, size=self._n_draws)

    def take(self, n: int, seen: set[str], ordinals: Counter[str]) -> Iterator[Problem]:
        """The next `n` whose questions are not in `seen`; adds them to it."""
        name = self._family.name
        for _ in range(n):
            question, reference = self._next_unseen(seen)
            seen.add(question)
            yield Problem(id=f"{name}-{ordinals[name]}", question=question, reference=reference, family=name, pool=name)
            ordinals[name] += 1

    def _next_unseen(self, seen: set[str]) -> tuple[str, str]:
        name = self._family.name
        for item in self._items:
            question = WORDINGS[name](item) if name in WORDINGS else str(item["question"]).strip()
            if question not in seen:
                return question, str(item["answer"])
        raise RecipeError(
            f"problems.families: {name!r} gave too few different problems in {self._n_draws} draws, "
            f"{self._n_wanted} are asked for: widen its options, lower its weight, or lower n_train and n_held_out"
        )


def _items(family: Family, *, seed: int, size: int) -> Iterator[dict[str, Any]]:
    """The package's own items, made one by one as they are asked for."""
    package = _package()
    if family.name not in package.DATASETS:
        raise RecipeError(
            f"problems.families: no family named {family.name!r} in reasoning_gym; {nearest(family.name, package.DATASETS)}"
        )
    known = [field.name for field in dataclasses.fields(package.DATASETS[family.name][1]) if field.name not in OURS]
    for option in family.options:
        if option in OURS:
            raise RecipeError(
                f"problems.families: {family.name}.options.{option}: leave it out, problems.seed, n_train and n_held_out say it"
            )
        if option not in known:
            raise RecipeError(f"problems.families: {family.name} has no option {option!r}; {nearest(option, known)}")
    with _accepted(family):
        dataset = package.create_dataset(family.name, seed=seed, size=size, **family.options)
    return (_made(dataset, i, family) for i in range(size))  # its own iterator begins anew at every `for`


def _made(dataset: Any, index: int, family: Family) -> dict[str, Any]:
    with _accepted(family):
        return cast(dict[str, Any], dataset[index])


@contextmanager
def _accepted(family: Family) -> Iterator[None]:
    """Some options the package refuses at once, some only when it makes a problem."""
    try:
        yield
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as e:
        raise RecipeError(f"problems.families: {family.name} refuses its options {family.options}: {e}") from e


def _package() -> Any:
    try:
        return importlib.import_module("reasoning_gym.factory")
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "reasoning_gym":
            raise
        raise RecipeError('problems.source = "reasoning_gym" needs a package: scripts/install problems') from None


def _seed(*parts: object) -> int:
    """A seed of its own for each use: the package gives seed + 1 the problems of seed, moved by one place."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big")

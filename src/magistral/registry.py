"""A name in a recipe becomes an object in one place; a typo lists the choices."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from magistral.errors import UnknownName

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause to append to an error: the nearest known name if one is near, and all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(names)}"


class Registry(Generic[T]):
    """Names to things of one kind, as `VERIFIERS = Registry[Verifier]("verifier")`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator. A name taken twice is a bug of ours."""
        assert name not in self._items, f"{self.kind} {name!r} is registered twice"

        def add(item: T) -> T:
            self._items[name] = item
            return item

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            raise UnknownName(f"no {self.kind} named {name!r}; {nearest(name, self._items)}")
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __contains__(self, name: str) -> bool:
        return name in self._items

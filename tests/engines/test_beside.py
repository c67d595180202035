"""Judging beside the asking: in order, while more comes, and nothing that came is lost when the coming ends badly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from magistral.engines import beside as module
from magistral.engines.base import BudgetSpent
from magistral.engines.beside import beside


def test_results_come_in_order_whichever_is_ready_first() -> None:
    def work(n: int) -> int:
        time.sleep(0.02 * (3 - n))
        return n * n

    assert list(beside(range(4), work)) == [0, 1, 4, 9]


def test_things_go_on_coming_while_one_is_worked_on() -> None:
    all_there = threading.Event()

    def things() -> Iterator[int]:
        yield from range(5)
        all_there.set()

    assert list(beside(things(), lambda n: all_there.wait(30))) == [True] * 5


def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 3)
    n_taken, n_done = 0, 0

    def things() -> Iterator[int]:
        nonlocal n_taken
        for n in range(20):
            n_taken += 1
            assert n_taken - n_done <= 3 + 2
            yield n

    for _ in beside(things(), lambda n: time.sleep(0.001)):
        n_done += 1
    assert n_done == 20


def test_an_end_in_an_error_comes_after_all_that_came() -> None:
    def things() -> Iterator[int]:
        yield from range(3)
        raise BudgetSpent("enough")

    results = beside(things(), lambda n: n)
    assert list(islice(results, 3)) == [0, 1, 2]
    with pytest.raises(BudgetSpent, match="enough"):
        next(results)


def test_what_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(beside([1, 0], lambda n: 1 / n))

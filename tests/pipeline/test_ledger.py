from __future__ import annotations

from magistral.flow import Problem
from magistral.pipeline.ledger import Ledger, seed_of

PROBLEMS = [Problem(id=f"p{i}", question=f"{i} + 1 = ?", reference=str(i + 1)) for i in range(5)]


def ledger() -> Ledger:
    return Ledger(PROBLEMS, seed=3, group_size=2)


def test_each_pass_asks_every_problem_once_in_an_order_of_its_own() -> None:
    asked = ledger()
    first, second = ([next(asked).problem.id for _ in range(5)] for _ in range(2))
    assert sorted(first) == sorted(second) == [p.id for p in PROBLEMS]
    assert first != second


def test_seeds_differ_by_completion_and_are_the_same_on_every_run() -> None:
    one, two = next(ledger()), next(ledger())
    assert one == two
    assert len(set(one.seeds)) == 2
    assert seed_of(3, "completion", 0, 0) == one.seeds[0]


def test_a_resumed_ledger_asks_the_open_ones_first_and_then_goes_on() -> None:
    before = ledger()
    asked = [next(before) for _ in range(4)]
    before.close(0)
    before.close(2)
    after = ledger()
    after.restore(before.state())
    assert [next(after).ordinal for _ in range(3)] == [1, 3, 4]
    after_again = ledger()
    after_again.restore(before.state())
    assert next(after_again) == asked[1]  # the same problem, the same seeds


def test_what_was_not_asked_again_before_a_second_crash_stays_open() -> None:
    before = ledger()
    for _ in range(3):
        next(before)
    middle = ledger()
    middle.restore(before.state())
    next(middle)
    assert middle.state() == {"next_ordinal": 3, "open": [0, 1, 2]}

"""What ends the asking: a budget that is spent, an engine that refuses or is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from magistral.engines.base import BudgetSpent, Request, Written
from magistral.errors import RunFailed, UserError
from magistral.eval.store import lines, spent_before
from magistral.verifiers.judges import Judges
from tests.eval.fakes import MANY, SUMS, Echo, Priced, measure, right


def test_an_engine_that_refuses_ends_the_asking_and_keeps_what_was_in_flight(tmp_path: Path, judges: Judges) -> None:
    class Poor(Echo):
        def submit(self, request: Request) -> None:
            if len(self.asked) >= 4:
                raise UserError("the budget is spent")
            super().submit(request)

    with pytest.raises(UserError, match="the budget is spent"):
        measure(tmp_path, Poor(right), judges)
    assert len(list(lines(tmp_path / "completions.jsonl"))) == 4


def test_what_is_set_aside_for_answers_in_flight_is_waited_for_before_a_budget_is_called_spent(
    tmp_path: Path, judges: Judges
) -> None:
    with pytest.raises(BudgetSpent):
        measure(tmp_path, engine := Priced(right), judges, MANY, n_runs=2)
    # each of 6 leaves room for another; after six, 12 are spent and 9 are left, which is less than 10
    assert (engine.spent, len(list(lines(tmp_path / "completions.jsonl")))) == (12, 12)


def test_what_was_spent_is_found_again_what_failed_included(tmp_path: Path, judges: Judges) -> None:
    class Falls(Priced):
        spent = -1.0  # of the benchmark before

        def submit(self, request: Request) -> None:
            Echo.submit(self, request)

    engine = Falls(right, fails=["sum-1", "sum-3"])
    measure(tmp_path, engine, judges, SUMS, meter=True)
    assert engine.spent == 11  # six requests of 2, two of them for nothing
    assert spent_before(tmp_path, (0, 0)) == 12
    with (tmp_path / "spent.jsonl").open("ab") as file:
        file.write(b'{"spent": 9')  # what kill -9 leaves
    assert spent_before(tmp_path, (0, 0)) == 12
    assert spent_before(tmp_path, (0, 1e6)) == 8 * 3  # dearer: the run had begun without a budget
    assert spent_before(tmp_path / "nothing", (1, 1)) == 0


def test_what_is_cut_short_counts_as_spent(tmp_path: Path, judges: Judges) -> None:
    class Cut(Priced):
        def step(self) -> list[Written]:
            raise KeyboardInterrupt

        def close(self) -> None:
            self.spent = 7

    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, Cut(right), judges, meter=True)
    assert spent_before(tmp_path, (0, 0)) == 7


def test_an_engine_that_fails_eight_times_in_a_row_is_asked_no_further(tmp_path: Path, judges: Judges) -> None:
    engine = Echo(right, fails=[p.id for p in MANY])
    with pytest.raises(RunFailed, match=r"^8 requests in a row failed: HTTP 503: busy; go on with --resume"):
        measure(tmp_path, engine, judges, MANY, n_runs=1)
    assert sum(engine.asked.values()) <= 8 + 4  # and what was in flight


def test_failures_with_an_answer_between_them_do_not_end_the_asking(tmp_path: Path, judges: Judges) -> None:
    spent = measure(tmp_path, Echo(right, fails=[p.id for p in MANY[1::2]]), judges, MANY, n_runs=1)
    assert spent.n_failed == 10

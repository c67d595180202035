from __future__ import annotations

from pathlib import Path

import pytest

from magistral.engines.base import Begun
from magistral.errors import RunFolderError
from magistral.flow import Problem
from magistral.pipeline.curriculum import Curriculum, seed_of
from magistral.pipeline.ledger import Ledger, LedgerFolder
from tests.pipeline.fakes import RL

PROBLEMS = [Problem(id=f"p{i}", question=f"{i} + 1 = ?", reference=str(i + 1)) for i in range(5)]


def ledger() -> Ledger:
    return Ledger(Curriculum(PROBLEMS, RL, seed=3))


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


def test_a_resumed_ledger_asks_the_open_ones_first_with_what_was_written_of_them(tmp_path: Path) -> None:
    before, files = ledger(), LedgerFolder(tmp_path / "ledger")
    asked = [next(before) for _ in range(4)]
    before.close(0)
    before.close(2)
    before.open[3] = (Begun(tokens=(7, 8), logprobs=(-0.1, -1e-17), versions=(0, 1)), Begun())
    closed = [{"ordinal": 0, "step": 1, "state": "trained"}, {"ordinal": 2, "step": 2, "state": "dropped", "why": "all alike"}]
    files.save(2, before, closed)
    after = ledger()
    assert files.restore(after, []) == 2
    one, three, four = (next(after) for _ in range(3))
    assert (one.ordinal, one.problem, one.seeds) == (1, asked[1].problem, asked[1].seeds)
    assert (three.ordinal, three.begun) == (3, before.open[3])  # to the last bit
    assert (four.ordinal, four.begun) == (4, ())
    assert files.closed() == closed


def test_what_was_not_asked_again_before_a_second_crash_stays_open(tmp_path: Path) -> None:
    before, middle, last, files = ledger(), ledger(), ledger(), LedgerFolder(tmp_path / "ledger")
    for _ in range(3):
        next(before)
    files.save(1, before, [])
    files.restore(middle, [])
    next(middle)
    files.save(2, middle, [])
    files.restore(last, [])
    assert [next(last).ordinal for _ in range(4)] == [0, 1, 2, 3]


def test_what_was_closed_after_the_last_whole_step_is_open_again(tmp_path: Path) -> None:
    before, files = ledger(), LedgerFolder(tmp_path / "ledger")
    next(before)
    files.save(1, before, [])
    with (tmp_path / "ledger" / "closed.jsonl").open("a") as file:
        file.write('{"ordinal": 0, "step": 2, "state": "trained"}\n{"ordinal": 1, "st')  # killed here
    after = ledger()
    assert files.restore(after, []) == 1
    assert list(after.open) == [0]
    assert (tmp_path / "ledger" / "closed.jsonl").read_text() == ""


def test_a_ledger_that_is_no_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "open.parquet").write_bytes(b"garbage")
    with pytest.raises(RunFolderError, match=r"open\.parquet cannot be read"):
        LedgerFolder(tmp_path).restore(ledger(), [])

"""A measurement from end to end, with engines that say what they are told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from magistral.engines.base import Counted, Request, Written
from magistral.errors import RunFailed, RunFolderError
from magistral.eval.ask import Asked, data_hash, groups, plan, selected
from magistral.eval.measure import STORED_AHEAD, Grading, changed, judge_stored, require_all, row_of
from magistral.eval.store import Lines, lines, read_verdicts
from magistral.flow import Problem, Trace, Verdict
from magistral.text.trace import parse
from magistral.verifiers.choice import read_key
from magistral.verifiers.judges import Judges
from tests.eval.fakes import MANY, SUMS, Echo, measure, right, seed_of

GPQA = Problem(
    id="g", question="Which?", kind="choice",
    reference=json.dumps({"key": "A", "options": ["right", "x", "y", "z"], "canary": "GUID 1"}),
)  # fmt: skip


def test_every_completion_is_asked_once_stored_with_its_seed_and_judged(tmp_path: Path, judges: Judges) -> None:
    engine = Echo(right)
    spent = measure(tmp_path, engine, judges)
    kept = {(row["problem_id"], row["index"]): row for row in lines(tmp_path / "completions.jsonl")}
    assert kept.keys() == {(p.id, i) for p in SUMS for i in range(2)}
    assert all(row["seed"] == seed_of(*key) and row["thinking"] == "I add." for key, row in kept.items())
    assert set(engine.asked.values()) == {1}
    assert engine.most <= 5  # n_in_flight is passed by less than a group
    table = read_verdicts(tmp_path / "verdicts.jsonl").to_pylist()
    assert [(row["problem_id"], row["index"], row["outcome"]) for row in table] == [
        (p.id, i, "right") for p in SUMS for i in range(2)
    ]
    assert table[0]["n_thinking"] == 3 * len("I add.") // len("I add." + "\\boxed{1}")
    require_all(spent)


def test_the_order_of_problems_changes_no_seed_and_no_verdict(tmp_path: Path, judges: Judges) -> None:
    tables = []
    for name, problems in (("a", SUMS), ("b", SUMS[::-1])):
        (tmp_path / name).mkdir()
        measure(tmp_path / name, Echo(lambda r, i: f"\\boxed{{{r.seeds[i] % 3}}}"), judges, problems)
        tables.append(read_verdicts(tmp_path / name / "verdicts.jsonl").drop_columns("reason"))
    assert tables[0].equals(tables[1])


def test_a_resumed_run_asks_for_what_is_missing_only_and_judges_what_was_not(tmp_path: Path, judges: Judges) -> None:
    measure(tmp_path, Echo(right), judges, SUMS[:3])
    (tmp_path / "verdicts.jsonl").write_text("")
    with (tmp_path / "completions.jsonl").open("ab") as file:
        file.write(b'{"problem_id": "sum-3", "ind')  # what kill -9 leaves in the middle of a line
    engine = Echo(right)
    measure(tmp_path, engine, judges)
    assert {key for key, _ in engine.asked} == {("sum-3", 0), ("sum-4", 0), ("sum-5", 0)}
    assert read_verdicts(tmp_path / "verdicts.jsonl").num_rows == 12


def test_what_an_engine_gave_up_on_is_no_wrong_answer(tmp_path: Path, judges: Judges) -> None:
    spent = measure(tmp_path, Echo(right, fails=["sum-2"]), judges)
    assert (spent.n_failed, read_verdicts(tmp_path / "verdicts.jsonl").num_rows) == (2, 10)
    with pytest.raises(RunFailed, match=r"^2 completions could not be had \(HTTP 503: busy\).*--resume"):
        require_all(spent)
    require_all(measure(tmp_path, Echo(right), judges))
    assert read_verdicts(tmp_path / "verdicts.jsonl").num_rows == 12


def test_tokens_that_nobody_counted_are_guessed_from_characters_and_marked() -> None:
    from magistral.text.message import Message

    request = Request(prompt=(), messages=(Message(role="user", content="x" * 9),), seeds=(0,), key="k", max_tokens=5)
    trace = parse("\\boxed{1}")

    def counts(text: str, said: Counted | None) -> tuple[int, int, bool]:
        row = row_of(Written(request=request, index=0, text=text), Asked(problem=SUMS[0], index=0, seed=0), trace, said)
        return row["n_prompt"], row["n_tokens"], row["guessed"]

    assert counts("y" * 13, Counted(prompt=7, completion=2)) == (7, 2, False)
    assert counts("y" * 13, None) == (3, 4, True)  # four characters a token, a part counts as one
    assert counts("y" * 99, None) == (3, 5, True)  # no more than it may have


def test_what_is_stored_is_judged_a_few_in_memory_at_a_time(tmp_path: Path, judges: Judges) -> None:
    measure(tmp_path, Echo(right), judges, MANY)

    class Watched(Grading):
        most = 0

        def add(self, kept: Mapping[str, Any]) -> None:
            super().add(kept)
            self.most = max(self.most, len(self._waiting))

    with Lines(tmp_path / "again.jsonl") as again, Lines(tmp_path / "completions.jsonl") as kept:
        with Watched(judges, again, MANY) as grading:
            judge_stored(kept, (), grading)
        assert grading.most == STORED_AHEAD + 1
        assert len(list(again)) == 40


def test_a_slow_verifier_does_not_hold_up_the_engine(tmp_path: Path) -> None:
    all_written = threading.Event()

    class Slow(Judges):
        def verify(self, trace: Trace, problem: Problem, *, draw: int = 0) -> Verdict:
            assert all_written.wait(60)
            return super().verify(trace, problem, draw=draw)

    class Last(Echo):
        def step(self) -> list[Written]:
            written = super().step()
            if sum(self.asked.values()) == 12 and self.idle:
                all_written.set()
            return written

    with Slow() as judges:
        measure(tmp_path, Last(right), judges)
    assert read_verdicts(tmp_path / "verdicts.jsonl").num_rows == 12


def test_options_stand_in_each_completions_own_order_which_is_kept_with_the_canary(tmp_path: Path, judges: Judges) -> None:
    def say(request: Request, place: int) -> str:
        question = str(request.messages[0].content)
        return f"\\boxed{{{next(line[0] for line in question.splitlines() if line.endswith(') right'))}}}"

    measure(tmp_path, Echo(say), judges, [GPQA], n_runs=16)
    rows = list(lines(tmp_path / "completions.jsonl"))
    keys = {read_key(row["reference"])[0] for row in rows}
    assert len(keys) > 1
    assert {row["canary"] for row in rows} == {"GUID 1"}
    verdicts = read_verdicts(tmp_path / "verdicts.jsonl").to_pylist()
    assert {(row["outcome"], row["answer"]) for row in verdicts} == {("right", "right")}
    with Lines(tmp_path / "again.jsonl") as again, Lines(tmp_path / "completions.jsonl") as kept:
        with Grading(judges, again, [GPQA]) as grading:
            judge_stored(kept, (), grading)
        assert {row["outcome"] for row in again} == {"right"}


def test_a_problem_that_no_verifier_can_judge_is_an_error_and_not_wrong(tmp_path: Path, judges: Judges) -> None:
    measure(tmp_path, Echo(lambda r, i: "\\boxed{1}"), judges, [Problem(id="p", question="q", reference=" ")], n_runs=1)
    assert read_verdicts(tmp_path / "verdicts.jsonl")["outcome"].to_pylist() == ["error"]


def test_a_change_says_both_verdicts_and_who_judged() -> None:
    old = {"problem_id": "p", "index": 1, "outcome": "wrong", "reason": "a", "answer": "1", "versions": "0.1"}
    new = old | {"outcome": "right", "reason": "b", "versions": "0.2"}
    assert changed(old, old) is None
    assert changed(old, new) == {
        "problem_id": "p", "index": 1, "before": {"outcome": "wrong", "reason": "a", "answer": "1", "versions": "0.1"},
        "after": {"outcome": "right", "reason": "b", "answer": "1", "versions": "0.2"},
    }  # fmt: skip


def test_a_group_has_one_question_and_no_more_than_fits() -> None:
    asked = list(plan([SUMS[0], GPQA], 5, seed_of))
    assert [len(g) for g in groups(iter(asked[:5]), 2)] == [2, 2, 1]
    assert all(len({a.problem.question for a in g}) == 1 for g in groups(iter(asked), 64))


def test_a_selection_and_a_hash_of_the_data_do_not_depend_on_order() -> None:
    assert {p.id for p in selected(SUMS, 3, 7)} == {p.id for p in selected(SUMS[::-1], 3, 7)}
    assert len(selected(SUMS, 3, 7)) == 3
    assert data_hash(SUMS) == data_hash(SUMS[::-1]) != data_hash(SUMS[1:])


def test_the_question_ends_with_how_to_give_the_answer() -> None:
    french = Problem(id="f", question="1 + 1 ?", reference="2", language="fr")
    assert Asked(problem=french, index=0, seed=0).question == "1 + 1 ?\n\nÉcris la réponse finale dans \\boxed{}."


def test_a_line_that_something_else_broke_is_named(tmp_path: Path) -> None:
    (tmp_path / "completions.jsonl").write_text('{"problem_id": "a"}\n{"\n')
    with pytest.raises(RunFolderError, match="line 2 is no JSON"):
        list(lines(tmp_path / "completions.jsonl"))


KILLED = """
import sys, time
from pathlib import Path
from tests.eval.fakes import Echo, measure, right
from magistral.verifiers.judges import Judges
def slowly(request, place):
    time.sleep(0.05)
    return right(request, place)
with Judges() as judges:
    measure(Path(sys.argv[1]), Echo(slowly), judges)
"""


def test_a_killed_run_has_lost_nothing_that_was_finished_and_asks_for_nothing_twice(tmp_path: Path, judges: Judges) -> None:
    stored = tmp_path / "completions.jsonl"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, env={**os.environ, "PYTHONPATH": f"{root}/src"}
    )
    deadline = time.monotonic() + 120
    while (not stored.exists() or stored.read_bytes().count(b"\n") < 3) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {(json.loads(line)["problem_id"], json.loads(line)["index"]) for line in stored.read_text().split("\n")[:-1]}
    assert 3 <= len(finished) < 12
    engine = Echo(right)
    measure(tmp_path, engine, judges)
    assert not {seed for _, seed in engine.asked} & {seed_of(*key) for key in finished}
    assert Counter((row["problem_id"], row["index"]) for row in lines(stored)) == {(p.id, i): 1 for p in SUMS for i in range(2)}
    assert read_verdicts(tmp_path / "verdicts.jsonl").num_rows == 12

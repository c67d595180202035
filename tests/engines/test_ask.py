"""Many questions to one engine: in order, each once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import pytest

from magistral.engines.ask import FAILED_IN_A_ROW, Answer, Asked, Asker, Journal
from magistral.engines.base import EngineFailed, Request, Written
from magistral.engines.scripted import Script, ScriptedEngine
from magistral.errors import RunFailed, RunFolderError
from magistral.text.tokens import Tokenizer, byte_tokenizer

TOKENIZER = byte_tokenizer()
QUESTIONS = [(i, f"q{i}", "x" * (1 + (7 * i) % 20)) for i in range(40)]
"""Long and short ones in turn, so that later ones are answered before earlier ones."""


def asker(engine: ScriptedEngine, *, n_parallel: int = 8) -> Asker:
    def request(text: str, seeds: tuple[int, ...], key: Hashable) -> Request:
        return Request(prompt=tuple(TOKENIZER.encode(text)), seeds=seeds, max_tokens=64, key=key)

    return Asker(
        engine, request=request, text=lambda w: TOKENIZER.decode(w.tokens[:-1]), seed=lambda name, i: int(name[1:]) * 10 + i,
        n_parallel=n_parallel,
    )  # fmt: skip


def echo(prompt: str, seed: int) -> str:
    return f"{prompt}{seed}"


def said(found: list[Asked[int]]) -> list[tuple[int, list[str]]]:
    return [(asked.thing, [answer.text for answer in asked.answers]) for asked in found]


WANTED = [(i, [f"{text}{i * 10 + place}" for place in range(3)]) for i, _, text in QUESTIONS]


class Failing(ScriptedEngine):
    """Gives up every request whose prompt is as long as one of `lengths`."""

    lengths: frozenset[int] = frozenset()

    def __init__(self, script: Script, tokenizer: Tokenizer) -> None:
        super().__init__(script, tokenizer)
        self._bad: list[Request] = []

    def submit(self, request: Request) -> None:
        super().submit(request)
        if len(request.prompt) in self.lengths:
            self._bad.append(request)

    def step(self) -> list[Written]:
        if self._bad:
            bad = self._bad.pop(0)
            self.cancel(bad.key)
            raise EngineFailed("no answer", bad.key)
        return super().step()


def test_answers_come_in_the_order_of_the_questions(tmp_path: Path) -> None:
    found = list(asker(ScriptedEngine(echo, TOKENIZER)).ask(QUESTIONS, 3, Journal(tmp_path)))
    assert said(found) == WANTED


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    first = asker(ScriptedEngine(echo, TOKENIZER)).ask(QUESTIONS, 3, Journal(tmp_path))
    for _ in range(10):
        next(first)
    n_lines = sum(len(file.read_text().splitlines()) for file in tmp_path.iterdir())
    again = asker(ScriptedEngine(echo, TOKENIZER))
    assert said(list(again.ask(QUESTIONS, 3, Journal(tmp_path)))) == WANTED
    assert again.n_asked == 3 * len(QUESTIONS) - n_lines < 3 * len(QUESTIONS) - 30 + 1


@pytest.mark.parametrize("cut", [1, 20, 60], ids=["its end", "its middle", "most of it"])
def test_a_last_line_that_a_crash_cut_is_asked_again(tmp_path: Path, cut: int) -> None:
    list(asker(ScriptedEngine(echo, TOKENIZER)).ask(QUESTIONS, 3, Journal(tmp_path)))
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-cut])
    again = asker(ScriptedEngine(echo, TOKENIZER))
    assert said(list(again.ask(QUESTIONS, 3, Journal(tmp_path)))) == WANTED
    assert again.n_asked == 1


def test_a_journal_of_other_questions_is_refused(tmp_path: Path) -> None:
    list(asker(ScriptedEngine(echo, TOKENIZER)).ask(QUESTIONS, 3, Journal(tmp_path)))
    with pytest.raises(RunFolderError, match="holds answers to 'q0', not to 'q1'"):
        list(asker(ScriptedEngine(echo, TOKENIZER)).ask(QUESTIONS[1:], 3, Journal(tmp_path)))


def test_a_question_without_a_text_passes_without_being_asked(tmp_path: Path) -> None:
    questions = [(1, "q1", "a"), (2, "q2", None), (3, "q3", "b")]
    found = list(asker(ScriptedEngine(echo, TOKENIZER)).ask(questions, 1, Journal(tmp_path)))
    assert said(found) == [(1, ["a10"]), (2, []), (3, ["b30"])]


def test_a_request_that_is_given_up_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    engine = Failing(echo, TOKENIZER)
    engine.lengths = frozenset({1})
    found = list(asker(engine).ask(QUESTIONS, 3, Journal(tmp_path)))
    assert [asked.thing for asked in found if asked.fault] == [0, 20]
    assert [a for a in said(found) if a[1]] == [w for w in WANTED if w[0] not in (0, 20)]


def test_a_question_that_does_not_fit_says_why(tmp_path: Path) -> None:
    found = list(asker(ScriptedEngine(echo, TOKENIZER, window=80)).ask(QUESTIONS, 3, Journal(tmp_path)))
    too_long = [asked for asked in found if asked.fault]
    assert [asked.thing for asked in too_long] == [i for i, _, text in QUESTIONS if len(text) > 16]
    assert all("over the window of 80" in asked.fault for asked in too_long)


def test_an_engine_that_gives_everything_up_ends_the_run(tmp_path: Path) -> None:
    engine = Failing(echo, TOKENIZER)
    engine.lengths = frozenset(range(1, 30))
    with pytest.raises(RunFailed, match=f"{FAILED_IN_A_ROW} requests in a row failed: no answer; go on with --resume"):
        list(asker(engine).ask(QUESTIONS, 3, Journal(tmp_path)))


@pytest.mark.parametrize(("n", "cut"), [(1, 0), (3, 0), (3, 5), (1, 5)], ids=["one", "many", "the last cut", "the only one cut"])
@pytest.mark.parametrize("length", [10, 1 << 17], ids=["short", "long"])
def test_what_was_spent_is_on_the_last_whole_line(tmp_path: Path, n: int, cut: int, length: int) -> None:
    journal = Journal(tmp_path)
    for i in range(n):
        journal.add(0, "q", Answer(index=i, seed=i, text="x" * length, n_tokens=1, stopped=True), spent=i + 1.0)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[: -cut or None])
    assert Journal(tmp_path).spent == (n if not cut else n - 1)

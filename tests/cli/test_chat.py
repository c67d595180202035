"""A conversation, with an engine that says what the test tells it to."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

import pytest

from magistral.cli import chat
from magistral.cli.chat import Chat, Growing, system_of
from magistral.engines.base import Request, Written
from magistral.errors import UserError
from magistral.flow import Finish
from magistral.text.tokens import Tokenizer, byte_tokenizer


class Telling:
    """Writes one byte a step of the next of `answers`, then its end-of-sequence token."""

    def __init__(self, tokenizer: Tokenizer, answers: Sequence[str], *, window: int = 1000) -> None:
        self.window, self.tokenizer = window, tokenizer
        self.answers, self.requests = list(answers), list[Request]()
        self.row: Written | None = None
        self.left: list[int] = []
        self.before_step: Callable[[], None] = lambda: None

    @property
    def idle(self) -> bool:
        return self.row is None

    def submit(self, request: Request) -> None:
        if len(request.prompt) + request.max_tokens > self.window:
            raise UserError("over the window")
        self.requests.append(request)
        self.row, self.left = Written(request=request, index=0), [*self.tokenizer.encode(self.answers.pop(0)), self.tokenizer.eos]

    def step(self) -> list[Written]:
        self.before_step()
        assert self.row is not None
        self.row.tokens.append(self.left.pop(0))
        if self.left:
            return []
        done, self.row = self.row, None
        done.finish = Finish.STOP
        return [done]

    def partial(self) -> list[Written]:
        return [self.row] if self.row else []

    def cancel(self, key: Hashable) -> None:
        assert self.row is not None
        assert self.row.request.key == key
        self.row = None


@pytest.fixture
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


def talk(engine: Telling, *, max_tokens: int = 50) -> Chat:
    settings = {"temperature": 0.7, "top_p": 1.0, "max_tokens": max_tokens}
    return Chat(engine=engine, tokenizer=engine.tokenizer, system="be brief", settings=settings, seed=7)


def test_thinking_and_answer_come_apart_and_only_the_answer_is_remembered(tokenizer: Tokenizer) -> None:
    engine = Telling(tokenizer, ["<think>\n1 + 1\n</think>\ntwo", "three"])
    talking = talk(engine)
    pieces = list(talking.answer("1 + 1?"))
    said = {phase: "".join(t for p, t in pieces if p == phase).strip() for phase in ("thinking", "summary")}
    assert said == {"thinking": "1 + 1", "summary": "two"}
    list(talking.answer("and one?"))
    assert tokenizer.decode(engine.requests[1].prompt) == "be brief\n1 + 1?\ntwo\nand one?\n"
    assert [r.seeds for r in engine.requests] == [(7,), (9,)]


def test_no_piece_holds_half_a_character(tokenizer: Tokenizer) -> None:
    pieces = [text for _, text in talk(Telling(tokenizer, ["é🎉!"])).answer("?")]
    assert pieces == ["é", "🎉", "!"]


def test_bytes_that_never_become_a_character_are_shown_at_the_end(tokenizer: Tokenizer) -> None:
    growing = Growing(tokenizer)
    tokens = tokenizer.encode("aé")[:2]
    assert [growing.more(tokens), growing.more(tokens, last=True)] == ["a", "\ufffd"]


def test_ctrl_c_stops_the_answer_and_not_the_conversation(tokenizer: Tokenizer) -> None:
    engine = Telling(tokenizer, ["abcdef", "next"])
    before = signal.getsignal(signal.SIGINT)

    def interrupt_at_the_third() -> None:
        if engine.row is not None and len(engine.row.tokens) == 2:
            signal.raise_signal(signal.SIGINT)

    engine.before_step = interrupt_at_the_third
    talking = talk(engine)
    assert "".join(text for _, text in talking.answer("?")) == "abc"
    assert signal.getsignal(signal.SIGINT) is before
    engine.before_step = lambda: None
    assert "".join(text for _, text in talking.answer("?")) == "next"


def test_the_oldest_turns_leave_a_full_window_and_a_question_too_long_is_refused(tokenizer: Tokenizer) -> None:
    engine = Telling(tokenizer, ["one", "two"], window=40)
    talking = talk(engine, max_tokens=20)
    list(talking.answer("question 1"))
    list(talking.answer("question 2"))
    assert tokenizer.decode(engine.requests[1].prompt) == "be brief\nquestion 2\n"
    with pytest.raises(UserError, match="window"):
        list(talking.answer("x" * 40))


def test_an_answer_is_shown_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    chat._show(
        iter([("thinking", "\nhm\x1b[2J\n"), ("thinking", "so"), ("thinking", "\n"), ("summary", "\n"), ("summary", "4\x07\n")])
    )
    assert capsys.readouterr().out == "hm␛[2J\nso\n\n4␇\n\n"


def test_questions_are_lines_until_the_end_whatever_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\n  \ntw\xff\nlast")))
    questions: Iterator[str] = chat._questions()
    assert list(questions) == ["one", "tw\ufffd", "last"]


def test_a_runs_recipe_brings_its_system_prompt(tmp_path: Path) -> None:
    recipe = """
name = "a"
prompt.system = "think first"
reward = {l_max = 100, l_cache = 20}
eval.max_tokens = 100
[problems]
n_train = 1
n_held_out = 1
families = [{name = "chain_sum"}]
"""
    (tmp_path / "recipe.toml").write_text(recipe)
    assert (system_of(str(tmp_path)), system_of("smollm2")) == ("think first", "")

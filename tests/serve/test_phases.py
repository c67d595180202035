"""One completion, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral.serve.events import End, Ended, Event, Note, Piece, Start, Whole
from magistral.serve.phases import Phases, Terms
from magistral.serve.pieces import Cutter, PlainCutter, TextCutter, TokenCutter
from magistral.text.trace import THINK_TEXT


class Words:
    """A tokenizer whose token i is the i-th of some byte strings: words may hold a part of a character."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self.words = words

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.words[i] for i in ids).decode("utf-8", "replace")


CLOSE = b"\nenough</think>\n"


def write(
    words: Sequence[bytes], cutter: Cutter | None = None, *, end: End | None = None, asked_at: int = -1, **terms: Any
) -> tuple[Whole, list[Event]]:
    """What comes of these tokens, the last being the end of sequence unless `end` says otherwise; a wanted closing is put in."""
    tokenizer = Words([*words, CLOSE])
    settled = Terms(**{"max_tokens": 1000, "closing": (len(words),), **terms})
    eos = len(words) - 1 if end is None else -1
    phases = Phases(tokenizer, cutter or TextCutter(THINK_TEXT), settled, eos=eos)
    events: list[Event] = []
    for i in range(len(words)):
        if i == asked_at:
            phases.answer_now()
        events += phases.take(i, -1.0)
        if phases.wanted:
            wanted, phases.wanted = phases.wanted, ()
            for token in wanted:
                events += phases.take(token, 0.0, forced=True)
        if phases.end:
            break
    if phases.end is None:
        events += phases.finish(end or End.LENGTH)
    whole = Whole(index=0)
    for event in events:
        whole.add(event)
    return whole, events


TEXT = "<think>\nhm é\n\nso\n</think>\n\nIt is 🎉!\n"


@given(st.lists(st.integers(0, len(TEXT.encode())), max_size=30))
def test_any_cut_into_tokens_gives_the_same_thinking_answer_and_count(cuts: list[int]) -> None:
    data = TEXT.encode()
    places = sorted({0, len(data), *cuts})
    words = [data[a:b] for a, b in pairwise(places)]
    whole, _ = write([*words, b""])
    assert (whole.thinking, whole.answer) == ("hm é\n\nso", "It is 🎉!")
    assert whole.ended is not None
    assert whole.ended.usage.completion == len(words) + 1


def test_marks_count_as_thinking_and_the_end_as_the_answer() -> None:
    whole, _ = write([b"<th", b"ink>", b"a", b"</think>", b"b", b""])
    assert whole.ended is not None
    assert (whole.ended.usage.thinking, whole.ended.usage.answer) == (4, 2)


THINK = (b"<think>", b"a", b"b", b"c", b"d", b"e", b"f", b"</think>", b"yes", b"")


@pytest.mark.parametrize(
    ("terms", "asked_at", "why", "thinking"),
    [
        ({"thinking_budget": 3}, -1, "budget", "ab\nenough"),
        ({"max_tokens": 10, "answer_reserve": 4}, -1, "reserve", "abcd\nenough"),
        ({}, 3, "asked", "abc\nenough"),
    ],
    ids=["budget of 3 with the mark", "10 - 5 - 1 for the closing - 4", "asked for while c is written"],
)
def test_thinking_is_closed(terms: dict[str, Any], asked_at: int, why: str, thinking: str) -> None:
    whole, _ = write(THINK, asked_at=asked_at, **terms)
    assert (whole.thinking, [n.kind for n in whole.notes]) == (thinking, [why])
    assert whole.answer.endswith("</think>yes"), "after one pair a mark is text"
    assert whole.ended is not None
    assert whole.ended.usage.forced == 1


@pytest.mark.parametrize("budget", range(1, 14))
def test_no_closing_cuts_a_character_in_two(budget: int) -> None:
    text = "aé数🎉b"
    words = [b"<think>", *(bytes([byte]) for byte in text.encode()), b"</think>", b"yes", b""]
    whole, _ = write(words, thinking_budget=budget)
    thought = whole.thinking.split("enough")[0].rstrip("\n")
    assert text.startswith(thought)
    assert len(thought.encode()) <= max(budget - 1, 0) + 3, "the rest of one character, at most"


def test_a_closing_is_put_in_once_and_never_into_the_answer() -> None:
    whole, _ = write([b"yes", b" and", b" more", b""], thinking_budget=1, asked_at=1)
    assert (whole.answer, whole.thinking, whole.notes) == ("yes and more", "", [])


def test_no_closing_where_it_leaves_no_room_for_an_answer() -> None:
    whole, _ = write(THINK[:4], end=End.LENGTH, max_tokens=4, answer_reserve=3, closing=(10,) * 4)
    assert whole.ended is not None
    assert (whole.thinking, whole.answer, whole.ended.in_thinking) == ("abc", "", True)


LOOP = [b"wait, ", b"but "] * 60


def test_thinking_in_a_loop_is_closed() -> None:
    whole, _ = write([b"<think>", *LOOP], end=End.LENGTH)
    assert [n.kind for n in whole.notes] == []  # each token is another id here
    phases = Phases(
        Words([b"<think>", b"wait, ", b"but ", CLOSE]), TextCutter(THINK_TEXT), Terms(max_tokens=999, closing=(3,)), eos=-1
    )
    tokens = [0, *([1, 2] * 60)]
    n = next(i for i, t in enumerate(tokens) if phases.take(t, 0.0) and phases.wanted)
    assert n == 1 + 2 + 64 - 1  # mark, first passage, and 64 tokens that repeat it


def test_an_answer_in_a_loop_is_ended() -> None:
    phases = Phases(Words([b"ha"]), PlainCutter(), Terms(max_tokens=999), eos=-1)
    events: list[Event] = []
    while phases.end is None:
        events += phases.take(0, 0.0)
    assert phases.end is End.LOOP
    assert "".join(e.text for e in events if isinstance(e, Piece)) == "ha" * 65
    assert [e.kind for e in events if isinstance(e, Note)] == ["loop"]
    assert isinstance(events[-1], Ended)


@pytest.mark.parametrize(
    ("words", "answer", "stop"),
    [
        ([b"one E", b"N", b"D two", b""], "one ", "END"),
        ([b"one E", b"N", b""], "one EN", ""),
        ([b"<think>END</think>a END", b""], "a ", "END"),
        ([b"a <call", b"> END", b""], "a ", "<call>"),
        ([b"<think>x</think>", b"\n\n", b"a\nb", b""], "a\nb", ""),
    ],
    ids=["over three tokens", "only its beginning", "not in the thinking", "the first of two", "not the newlines after a mark"],
)
def test_a_stop_string_ends_the_answer_and_is_not_shown(words: list[bytes], answer: str, stop: str) -> None:
    whole, _ = write(words, stop=("END", "<call>", "\n\n"))
    assert whole.ended is not None
    assert (whole.answer, whole.ended.stop_string) == (answer, stop)
    assert whole.ended.end is (End.STOP_STRING if stop else End.STOP)


CALL = b'[TOOL_CALLS]add[ARGS]{"a": 1}'


@pytest.mark.parametrize(
    ("words", "calls", "answer", "notes"),
    [
        ([b"so ", CALL[:5], CALL[5:], b""], [("add", '{"a": 1}')], "so ", []),
        ([CALL, b"[TOOL_CALLS]sub[CALL_ID]x9[ARGS]{}", b""], [("add", '{"a": 1}'), ("sub", "{}")], "", []),
        ([b"<think>", CALL, b"</think>no", b""], [], "no", []),
        ([b"[TOOL_CALLS]add[ARGS]{", b""], [], "[TOOL_CALLS]add[ARGS]{", ["unreadable_call"]),
    ],
    ids=["after text", "two", "in the thinking it is text", "cut short it is text"],
)
def test_calls_of_tools(words: list[bytes], calls: list[tuple[str, str]], answer: str, notes: list[str]) -> None:
    whole, _ = write(words, tools=True)
    assert [(c.name, c.arguments) for c in whole.calls] == calls
    assert (whole.answer, [n.kind for n in whole.notes]) == (answer, notes)
    assert whole.ended is not None
    assert whole.ended.end is (End.TOOLS if calls else End.STOP)


def test_without_tools_the_words_of_a_call_are_text() -> None:
    whole, _ = write([CALL, b""])
    assert (whole.answer, whole.calls) == (CALL.decode(), [])


@pytest.mark.parametrize(
    ("start", "words", "thinking", "answer"),
    [
        ("free", [b"[THINK]", b"x</think>[THINK", b"]", b"[/THINK]", b"y", b""], "x</think>[THINK]", "y"),
        ("free", [b"[/THINK]", b"y", b""], "", "y"),
        ("thinking", [b"z", b"z", b"x", b"[/THINK]", b"y", b""], "zzx", "y"),
        ("answer", [b"[THINK]", b"y", b""], "", "[THINK]y"),
    ],
    ids=["the words as text are text", "a closing mark alone is dropped", "begun in thinking", "no thinking wanted"],
)
def test_marks_that_are_control_tokens(start: Start, words: list[bytes], thinking: str, answer: str) -> None:
    ids = [words.index(w) if w in words else -1 for w in (b"[THINK]", b"[/THINK]")]
    whole, _ = write(words, TokenCutter(ids[0], ids[1], start))
    assert (whole.thinking, whole.answer) == (thinking, answer)


def test_each_token_of_the_answer_comes_with_the_text_it_is_of() -> None:
    whole, _ = write([b"<think>a</think>", b"\xf0\x9f", b"\x8e\x89", b"b", b""], logprobs=True)
    assert [(t.id, t.logprob) for t in whole.tokens] == [(1, -1.0), (2, -1.0), (3, -1.0)]


def test_a_plain_continuation_keeps_its_newlines_and_marks() -> None:
    whole, _ = write([b"\n<think>a", b"\n", b""], PlainCutter(), trim=False)
    assert (whole.answer, whole.thinking) == ("\n<think>a\n", "")


def test_a_call_that_is_demanded_is_begun_where_the_answer_starts() -> None:
    words = Words([b"<think>", b"hm", b"</think>", b"well", b"[TOOL_CALLS]add[ARGS]{", b'"a": 1}', b""])
    phases = Phases(words, TextCutter(THINK_TEXT), Terms(max_tokens=99, tools=True, call=(4,)), eos=6)
    events: list[Event] = []
    for token in (0, 1, 2):
        events += phases.take(token, 0.0)
    assert phases.wanted == (4,)
    phases.wanted = ()
    events += [*phases.take(4, 0.0, forced=True), *phases.take(5, 0.0), *phases.take(6, 0.0)]
    whole = Whole(index=0)
    for event in events:
        whole.add(event)
    assert [(c.name, c.arguments) for c in whole.calls] == [("add", '{"a": 1}')]
    assert phases.n_answer == 3

"""A completion's text, cut in two: the odd cases, the form, and that no cut into chunks changes anything."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral.text.trace import THINK_TEXT, THINK_TOKENS, Marks, Phase, TraceParser, parse

CASES = [
    ("<think>a</think>b", "a", "b", ""),
    ("<think>\na\nb\n</think>\n\nc\n", "a\nb", "c", ""),
    ("<think></think>", "", "", ""),
    ("<think>a < b </thin k></think>c", "a < b </thin k>", "c", ""),
    ("", "", "", "no opening mark"),
    ("just an answer", "", "just an answer", "no opening mark"),
    ("a</think>b", "", "ab", "no opening mark"),
    ("<think>cut off", "cut off", "", "no closing mark"),
    ("before<think>cut off", "cut off", "before", "text before the opening mark"),
    ("x<think>a</think>b", "a", "xb", "text before the opening mark"),
    (" <think>a</think>b", "a", " b", "text before the opening mark"),
    ("</think><think>a", "a", "", "a closing mark before the opening mark"),
    ("</think><think>a</think>b", "a", "b", "a closing mark before the opening mark"),
    ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d", "more than one pair of marks"),
    ("<think>a<think>b</think>c", "a<think>b", "c", "more than one pair of marks"),
    ("<think>a</think>b</think>c", "a", "b</think>c", "more than one pair of marks"),
    ("<think>a[/THINK]b</think>c", "a[/THINK]b", "c", ""),
    ("<THINK>a</THINK>b", "", "<THINK>a</THINK>b", "no opening mark"),
]
IDS = [
    "well formed",
    "newlines around the parts go",
    "both parts empty",
    "what only begins like a mark is text",
    "empty",
    "no marks: all summary",
    "closing mark alone is dropped",
    "opening mark alone: the rest is thinking",
    "what stood before an opening mark alone is the summary",
    "text before the pair joins the summary",
    "not even a space before the pair",
    "reversed",
    "a closing mark and a pair",
    "a second pair is plain text",
    "an opening mark while thinking is plain text",
    "a second closing mark is plain text",
    "the other kind of marks is plain text",
    "marks are lower case",
]


@pytest.mark.parametrize(("text", "thinking", "summary", "fault"), CASES, ids=IDS)
def test_a_text_is_cut_in_two(text: str, thinking: str, summary: str, fault: str) -> None:
    trace = parse(text)
    assert (trace.thinking, trace.summary, trace.fault, trace.well_formed) == (thinking, summary, fault, not fault)


def test_control_tokens_are_marks_too() -> None:
    trace = parse("[THINK]a[/THINK]b", THINK_TOKENS)
    assert (trace.thinking, trace.summary, trace.well_formed) == ("a", "b", True)


def joined(pieces: list[tuple[Phase, str]]) -> dict[str, str]:
    return {phase: "".join(text for p, text in pieces if p == phase) for phase in ("thinking", "summary")}


@given(
    fragments=st.lists(
        st.sampled_from(["<", "/", "think", ">", "<think>", "</think>", "<thi", "nk>", "</", "a", "\n", " "]), max_size=14
    ),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
def test_the_result_does_not_depend_on_the_chunks(fragments: list[str], cuts: list[int]) -> None:
    text = "".join(fragments)
    edges = [0, *sorted(c for c in cuts if c <= len(text)), len(text)]
    whole, cut = TraceParser(), TraceParser()
    expected = whole.feed(text) + whole.finish()
    pieces = [piece for a, b in itertools.pairwise(edges) for piece in cut.feed(text[a:b])] + cut.finish()
    assert joined(pieces) == joined(expected)
    assert (cut.fault, cut.phase) == (whole.fault, whole.phase)
    assert parse(text).thinking == joined(pieces)["thinking"].strip("\n")
    assert parse(text).summary == joined(pieces)["summary"].strip("\n")


def test_only_what_may_be_a_mark_is_held_back() -> None:
    parser = TraceParser(THINK_TEXT)
    assert parser.feed("<think>so a <") == [("thinking", "so a ")]
    assert parser.feed(" b, c </thin") == [("thinking", "< b, c ")]
    assert parser.feed("k>27") == [("summary", "27")]
    assert parser.finish() == []


def test_what_was_held_back_comes_at_the_end() -> None:
    parser = TraceParser(Marks("<t>", "</t>"))
    assert parser.feed("<t>a</") == [("thinking", "a")]
    assert parser.finish() == [("thinking", "</")]
    assert parser.fault == "no closing mark"


def test_a_text_of_marks_alone_takes_linear_time() -> None:
    start = time.perf_counter()
    trace = parse("<think>" * 40_000)
    assert time.perf_counter() - start < 2
    assert trace.fault == "no closing mark"

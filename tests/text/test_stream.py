"""Completions by token: the same pieces whatever the chunks, and a mark is a mark only as the version writes it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import tekken

from magistral.flow import Completion, Finish, Problem
from magistral.recipe import Prompt
from magistral.text.stream import TraceStream, completion_parser, parse_tokens
from magistral.text.tekken import tokenizer_from_tekken
from magistral.text.template import problem_tokens
from magistral.text.tokens import Tokenizer, byte_tokenizer
from magistral.text.trace import Phase, parse


@pytest.fixture(scope="module")
def v13(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_tekken(tekken.write_small(tmp_path_factory.mktemp("v13")))


@pytest.fixture(scope="module")
def v11(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_tekken(tekken.write_small(tmp_path_factory.mktemp("v11"), "v11"))


def joined(pieces: list[tuple[Phase, str]]) -> dict[str, str]:
    return {phase: "".join(text for p, text in pieces if p == phase) for phase in ("thinking", "summary")}


CASES = [
    ("[THINK]", "a", "[/THINK]", "b", "</s>"),
    ("[THINK]", "[THINK]x[/THINK]", "[/THINK]", "[/THINK]b"),
    ("[THINK]", "<think>a</think>", "[/THINK]", "b"),
    ("a", "[THINK]", "b"),
    ("a", "[/THINK]", "b"),
    ("[THINK]a[/THINK]b",),
    ("[THINK]", "a", "[/THINK]", "b", "[THINK]", "c", "[/THINK]", "d"),
    ("[THINK]", "a", "[/THINK]", "b", "</s>", "never read"),
]
EXPECTED = [
    ("a", "b", ""),
    ("[THINK]x[/THINK]", "[/THINK]b", ""),
    ("<think>a</think>", "b", ""),
    ("b", "a", "text before the opening mark"),
    ("", "ab", "no opening mark"),
    ("", "[THINK]a[/THINK]b", "no opening mark"),
    ("a", "b[THINK]c[/THINK]d", "more than one pair of marks"),
    ("a", "b", ""),
]
IDS = [
    *(
        "well formed",
        "the same letters as text are text",
        "the other version's marks are text",
        "text before",
        "a closing mark alone",
    ),
    *("marks as text are no marks", "a second pair is text", "nothing after the end"),
]


def ids_of(tokenizer: Tokenizer, parts: tuple[str, ...]) -> list[int]:
    """A part that is just a control token's text is that token; any other is text."""
    return [i for part in parts for i in ([tokenizer.control_id(part)] if part in tokenizer.special else tokenizer.encode(part))]


@pytest.mark.parametrize(("parts", "expected"), list(zip(CASES, EXPECTED, strict=True)), ids=IDS)
def test_marks_that_are_tokens_are_read_as_tokens(v13: Tokenizer, parts: tuple[str, ...], expected: tuple[str, str, str]) -> None:
    trace = parse_tokens(v13, ids_of(v13, parts))
    assert (trace.thinking, trace.summary, trace.fault) == expected


FRAGMENTS = ["<think>", "</think>", "<", "/", "think", ">", "\n", "é", "数学", "🙂", "in", "[THINK]", "\ufffd", " a"]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=12)


@given(parts=TEXTS, cuts=st.lists(st.integers(0, 40), max_size=8))
def test_marks_that_are_text_are_found_whatever_the_tokens_and_the_chunks(
    v11: Tokenizer, parts: list[str], cuts: list[int]
) -> None:
    text = "".join(parts)
    for tokenizer in (v11, byte_tokenizer()):
        ids = tokenizer.encode(text)
        edges = [0, *sorted(c for c in cuts if c <= len(ids)), len(ids)]
        stream = TraceStream(tokenizer)
        pieces = [piece for a, b in itertools.pairwise(edges) for piece in stream.feed(ids[a:b])] + stream.finish()
        whole = parse(text)
        assert joined(pieces)["thinking"].strip("\n") == whole.thinking
        assert joined(pieces)["summary"].strip("\n") == whole.summary
        assert stream.parser.fault == whole.fault
        assert parse_tokens(tokenizer, ids) == whole
        assert sum(stream.n_tokens.values()) == len(ids)


@given(tokens=st.lists(st.integers(0, 300), max_size=40), cuts=st.lists(st.integers(0, 40), max_size=8))
def test_any_tokens_at_all_give_the_same_pieces_whatever_the_chunks(v13: Tokenizer, tokens: list[int], cuts: list[int]) -> None:
    edges = [0, *sorted(c for c in cuts if c <= len(tokens)), len(tokens)]
    one, many = TraceStream(v13), TraceStream(v13)
    expected = one.feed(tokens) + one.finish()
    pieces = [piece for a, b in itertools.pairwise(edges) for piece in many.feed(tokens[a:b])] + many.finish()
    assert joined(pieces) == joined(expected)
    assert (many.parser.fault, many.n_tokens, many.ended) == (one.parser.fault, one.n_tokens, one.ended)


def test_half_a_character_waits_and_broken_bytes_do_not_wait_for_ever() -> None:
    tokenizer = byte_tokenizer()
    stream = TraceStream(tokenizer)
    first, second = tokenizer.encode("é")
    assert stream.feed([first]) == []
    assert stream.feed([second]) == [("summary", "é")]
    assert stream.feed([first] * 20) == [("summary", "\ufffd")] * 19
    assert stream.finish() == [("summary", "\ufffd")]


def test_a_character_that_reads_as_broken_does_not_break_the_next() -> None:
    tokenizer = byte_tokenizer()
    stream = TraceStream(tokenizer)
    pieces = [piece for token in tokenizer.encode("\ufffd\ufffd\ufffd数") for piece in stream.feed([token])]
    assert pieces == [("summary", "\ufffd")] * 3 + [("summary", "数")]


def test_words_that_end_in_half_a_character_do_not_wait_for_ever(tmp_path: Path) -> None:
    tokenizer = tokenizer_from_tekken(tekken.write_small(tmp_path, words=(b"a\xe6",)))
    word = 40 + 256
    stream = TraceStream(tokenizer)
    assert joined(stream.feed([word] * 40))["summary"].count("a") >= 20
    assert joined(stream.finish())["summary"].endswith("\ufffd")


def test_tokens_are_counted_by_phase(v13: Tokenizer) -> None:
    stream = TraceStream(v13)
    stream.feed(ids_of(v13, ("[THINK]", "abc", "[/THINK]", "de", "</s>")))
    assert stream.n_tokens == {"thinking": 5, "summary": 3}
    assert stream.ended


def test_a_long_completion_takes_linear_time(v13: Tokenizer) -> None:
    n = [0]
    decode = Tokenizer.decode

    def counted(self: Tokenizer, ids: list[int]) -> str:
        n[0] += len(ids)
        return decode(self, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "decode", counted)
        parse_tokens(v13, v13.encode("word " * 400))
    assert n[0] <= 8 * 2000


def test_the_reward_is_not_paid_for_marks_that_are_only_text(v13: Tokenizer, tmp_path: Path) -> None:
    forged = v13.encode("[THINK]a[/THINK]b")
    assert parse(v13.decode(forged), v13.marks).well_formed
    assert not parse_tokens(v13, forged).well_formed


@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_a_prompt_that_begins_the_thinking_and_its_completion_read_as_one_trace(v13: Tokenizer, kind: str) -> None:
    tokenizer = v13 if kind == "tokens" else byte_tokenizer()
    close = [v13.control_id("[/THINK]")] if kind == "tokens" else tokenizer.encode("</think>")
    prompt = problem_tokens(tokenizer, Prompt(system="s", begin_thinking=True), "q")
    plain = problem_tokens(tokenizer, Prompt(system="s"), "q")
    opening = [v13.control_id("[THINK]")] if kind == "tokens" else tokenizer.encode("<think>\n")
    assert prompt == (*plain, *opening)
    written = (*tokenizer.encode("a"), *close, *tokenizer.encode("b"))
    completion = Completion(
        problem=Problem(id="p", question="q", reference="b"),
        group=0,
        index=0,
        seed=0,
        prompt_tokens=prompt,
        tokens=written,
        logprobs=(0.0,) * len(written),
        versions=(0,) * len(written),
        text=tokenizer.decode(written),
        finish=Finish.LENGTH,
    )
    begun = completion_parser(tokenizer, begun=True)(completion)
    assert (begun.thinking, begun.summary, begun.well_formed) == ("a", "b", True)
    assert completion_parser(tokenizer)(completion).fault == "no opening mark"

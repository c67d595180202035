"""A completion's text cut in two: thinking and summary. One automaton, whole and streamed.

What goes where follows the parser that serves Mistral's models: text before the opening mark belongs to the summary; an
opening mark without a closing one makes the rest thinking; a closing mark alone is dropped; without marks all is summary.
After one pair further marks are plain text. Whether a text is well formed is a stricter question (Magistral, arXiv
2506.10910, section 2.2): it starts with the opening mark (chosen: not even a space before it, so that the form cannot
drift), and has exactly one pair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from magistral.flow import Trace

Phase = Literal["thinking", "summary"]


@dataclass(frozen=True, slots=True)
class Marks:
    open: str
    close: str


THINK_TEXT = Marks("<think>", "</think>")
"""Magistral 1.0 (2506): plain text."""
THINK_TOKENS = Marks("[THINK]", "[/THINK]")
"""Magistral 1.1 and 1.2 (2507, 2509): control tokens."""


class TraceParser:
    """Feed chunks of any cut; the pieces that come out, joined by phase, do not depend on the cut.

    With `in_text` false, marks come through `mark` alone, as those that are control tokens do, and text is only text."""

    def __init__(self, marks: Marks = THINK_TEXT, *, in_text: bool = True) -> None:
        self.marks, self.in_text = marks, in_text
        self.phase: Phase = "summary"
        self.n_open = self.n_close = 0
        """Marks seen, those that are plain text included."""
        self._mark = re.compile(f"{re.escape(marks.open)}|{re.escape(marks.close)}")
        self._held = ""
        self._text_first = self._close_first = False

    def feed(self, chunk: str) -> list[tuple[Phase, str]]:
        """Pieces that are certain by now."""
        pieces: list[tuple[Phase, str]] = []
        if not self.in_text:
            self._emit(pieces, chunk)
            return pieces
        text, at = self._held + chunk, 0
        for mark in self._mark.finditer(text):
            self._emit(pieces, text[at : mark.start()])
            self._take(pieces, mark[0])
            at = mark.end()
        certain = len(text) - self._possible_mark(text[at:])
        self._emit(pieces, text[at:certain])
        self._held = text[certain:]
        return pieces

    def mark(self, text: str) -> list[tuple[Phase, str]]:
        """One of the two marks, as a token of its own."""
        pieces = self.finish()
        self._take(pieces, text)
        return pieces

    def finish(self) -> list[tuple[Phase, str]]:
        """What was held back as the possible start of a mark."""
        pieces: list[tuple[Phase, str]] = []
        self._emit(pieces, self._held)
        self._held = ""
        return pieces

    @property
    def fault(self) -> str:
        """Why the text so far is not well formed; empty if it is."""
        if self.n_open == 0:
            return "no opening mark"
        if self._text_first:
            return "text before the opening mark"
        if self._close_first:
            return "a closing mark before the opening mark"
        if self.n_close == 0:
            return "no closing mark"
        return "more than one pair of marks" if self.n_open > 1 or self.n_close > 1 else ""

    def _take(self, pieces: list[tuple[Phase, str]], mark: str) -> None:
        opening = mark == self.marks.open
        if opening and self.n_open == 0:
            self.phase = "thinking"
        elif not opening and self.phase == "thinking":
            self.phase = "summary"
        elif not opening and self.n_open == 0:
            self._close_first = True  # no piece: a closing mark alone is dropped
        else:
            self._emit(pieces, mark)
        self.n_open += opening
        self.n_close += not opening

    def _emit(self, pieces: list[tuple[Phase, str]], text: str) -> None:
        if text:
            self._text_first |= self.n_open == 0
            pieces.append((self.phase, text))

    def _possible_mark(self, text: str) -> int:
        """Length of the longest end of `text` that a mark could start with."""
        longest = max(len(self.marks.open), len(self.marks.close)) - 1
        for n in range(min(longest, len(text)), 0, -1):
            if self.marks.open.startswith(text[-n:]) or self.marks.close.startswith(text[-n:]):
                return n
        return 0


def parse(text: str, marks: Marks = THINK_TEXT) -> Trace:
    """The whole text at once; newlines around each part are taken off."""
    parser = TraceParser(marks)
    return trace_of(parser.feed(text) + parser.finish(), parser.fault)


def trace_of(pieces: list[tuple[Phase, str]], fault: str) -> Trace:
    thinking, summary = ("".join(t for phase, t in pieces if phase == wanted).strip("\n") for wanted in ("thinking", "summary"))
    return Trace(thinking=thinking, summary=summary, well_formed=not fault, fault=fault)

"""Cutting a completion's text: where a phase begins, where a stop string or a call of a tool does.

Each cutter takes text of any cut and holds back only what may yet become part of what it looks for.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Protocol

from magistral.serve.events import Call, Phase, Start
from magistral.text.tokens import Tokenizer
from magistral.text.trace import Marks, TraceParser

CALLS = "[TOOL_CALLS]"
_CALL = re.compile(r"\s*([A-Za-z0-9_.-]{1,128})(?:\[CALL_ID\]([A-Za-z0-9_-]{1,64}))?\[ARGS\](.*)", re.DOTALL)


class Cutter(Protocol):
    @property
    def phase(self) -> Phase: ...

    def feed(self, token: int | None, text: str) -> list[tuple[Phase, str]]: ...
    def finish(self) -> list[tuple[Phase, str]]: ...


class TextCutter:
    """Marks that are plain text (Magistral 1.0), several tokens each, cut as the tokenizer likes."""

    def __init__(self, marks: Marks, start: Start = "free") -> None:
        self._parser = TraceParser(marks)
        self._parser.feed({"free": "", "thinking": marks.open, "answer": marks.open + marks.close}[start])

    @property
    def phase(self) -> Phase:
        return "thinking" if self._parser.phase == "thinking" else "answer"

    def feed(self, token: int | None, text: str) -> list[tuple[Phase, str]]:
        return _named(self._parser.feed(text))

    def finish(self) -> list[tuple[Phase, str]]:
        return _named(self._parser.finish())


def _named(pieces: Sequence[tuple[str, str]]) -> list[tuple[Phase, str]]:
    return [("thinking" if phase == "thinking" else "answer", text) for phase, text in pieces]


class TokenCutter:
    """Marks that are control tokens (Magistral 1.1 and 1.2): the same words as plain text are only text."""

    def __init__(self, open_id: int, close_id: int, start: Start = "free") -> None:
        self._open, self._close = open_id, close_id
        self.phase: Phase = "thinking" if start == "thinking" else "answer"
        self._may_open = start == "free"

    def feed(self, token: int | None, text: str) -> list[tuple[Phase, str]]:
        if token == self._open and self._may_open:
            self.phase, self._may_open = "thinking", False
            return []
        if token == self._close and (self.phase == "thinking" or self._may_open):
            self.phase = "answer"  # one alone is dropped
            return []
        return [(self.phase, text)] if text else []

    def finish(self) -> list[tuple[Phase, str]]:
        return []


class PlainCutter:
    """No marks: all is answer."""

    phase: Phase = "answer"

    def feed(self, token: int | None, text: str) -> list[tuple[Phase, str]]:
        return [("answer", text)] if text else []

    def finish(self) -> list[tuple[Phase, str]]:
        return []


def cutter_of(tokenizer: Tokenizer, start: Start) -> Cutter:
    """For completions that begin there, by the marks that the model writes."""
    marks = tokenizer.marks
    if not tokenizer.marks_are_tokens:
        return TextCutter(marks, start)
    return TokenCutter(tokenizer.control_id(marks.open), tokenizer.control_id(marks.close), start)


class Finder:
    """Looks for the first of several strings; what follows it is `after`, and no longer comes out."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = tuple(s for s in strings if s)
        self._held = ""
        self.found = ""
        self.after = ""

    def feed(self, text: str) -> str:
        """What certainly stands before any of them."""
        if self.found:
            self.after += text
            return ""
        self._held += text
        places = [(at, -len(s), s) for s in self._strings if (at := self._held.find(s)) >= 0]
        if places:
            at, _, self.found = min(places)
            out, self.after, self._held = self._held[:at], self._held[at + len(self.found) :], ""
            return out
        n = self._n_possible()
        out, self._held = self._held[: len(self._held) - n], self._held[len(self._held) - n :]
        return out

    def finish(self) -> str:
        out, self._held = self._held, ""
        return out

    def _n_possible(self) -> int:
        """Length of the longest end of what is held that one of the strings could start with."""
        longest = max((len(s) for s in self._strings), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-n:]) for s in self._strings):
                return n
        return 0


class Trimmer:
    """Takes newlines off both ends of a phase, as the marks stand on lines of their own."""

    def __init__(self, *, start: bool) -> None:
        self._at_start = start
        self._held = ""

    def feed(self, text: str) -> str:
        if self._at_start:
            text = text.lstrip("\n")
            self._at_start = not text
        body = text.rstrip("\n")
        if not body:
            self._held += text
            return ""
        out, self._held = self._held + body, text[len(body) :]
        return out


def read_calls(text: str) -> list[Call] | None:
    """Calls as Mistral's models write them, `name[ARGS]{…}`, each after a mark; None where one cannot be read."""
    calls = []
    for part in text.split(CALLS):
        match = _CALL.fullmatch(part)
        if match is None:
            return None
        try:
            arguments = json.loads(match[3])
        except (ValueError, RecursionError):
            return None
        if not isinstance(arguments, dict):
            return None
        calls.append(Call(id=match[2] or secrets.token_hex(5)[:9], name=match[1], arguments=match[3].strip()))
    return calls

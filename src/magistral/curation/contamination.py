"""Contamination: problems that are a benchmark's, or hold most of one.

A benchmark's question is looked for as it stands, and, where it holds tests, examples or the head of a function, by its prose
alone: others copy the one without the other."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from magistral.curation.candidate import Candidate
from magistral.curation.stage import Dropped
from magistral.curation.words import numbers_of, runs_of, words_of

LONG = 3
"""Times `n` words from which prose is found by a share of its runs. chosen: shorter prose of programs is made by a pattern
("Write a function to find the area of a …"), of which half is no copy."""
LEAST = 4
"""Words, or a number, of a question that is found among other sentences; another is where it is all that there is. chosen: three
words ("Solve for $x$.") stand in many problems."""

_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_DOCUMENTED = re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'|/\*(.*?)\*/', re.DOTALL)
_EXAMPLES = re.compile(
    r"^[ \t]*(?:>>>|\[?examples?\b|assert\b|[\w.]+\(.*\)\s*(?:==?|=>|->|\u279e|\u2192|should|returns?))"
    r"|\b(?:for example|it must pass these tests)\b",
    re.MULTILINE | re.IGNORECASE,
)
_SENTENCE_ENDS = re.compile(r"(?<=[.?!:;,])\s+|(?<=\$)\s+(?=[A-Z])|\n|\"\"\"|'''")


@dataclass(frozen=True, slots=True)
class Known:
    """A text of a benchmark."""

    name: str
    n_runs: int
    least: float
    """Share of its runs that makes a problem the same."""
    private: bool


class Contamination:
    """Benchmarks are small and held in memory whole: each run of `n` words, and whose it is."""

    def __init__(self, benchmarks: Iterable[tuple[str, str, bool]], *, n: int, overlap: float) -> None:
        """`benchmarks` are (name, question, whether nothing of it may be shown).

        `overlap`: the share of a question's runs that makes a problem the same."""
        self.n = n
        self._known: list[Known] = []
        self._owners: dict[str, list[int]] = defaultdict(list)
        """By run; a text of fewer than `n` words is a run by itself."""
        for name, question, private in benchmarks:
            self._add(name, words_of(question), overlap, private)
            if words := words_of(prose_of(question)):
                self._add(name, words, overlap if len(words) >= LONG * n else 1.0, private)

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate | Dropped]:
        for candidate in candidates:
            yield self._judged(candidate)

    def _add(self, name: str, words: list[str], least: float, private: bool) -> None:
        runs = runs_of(words, self.n) if words else set()
        for run in runs:
            self._owners[run].append(len(self._known))
        self._known.append(Known(name, len(runs), least, private))

    def _judged(self, candidate: Candidate) -> Candidate | Dropped:
        question = candidate.question
        runs = runs_of(words_of(question), self.n) | short_runs(question, self.n)
        hits = Counter(owner for run in runs for owner in self._owners.get(run, ()))
        shares = ((n_hits / self._known[owner].n_runs, self._known[owner]) for owner, n_hits in hits.items())
        found = max(((share, known) for share, known in shares if share >= known.least), key=lambda f: f[0], default=None)
        if found is None:
            return candidate
        share, known = found
        shown = candidate.but(question="", reference="", options=()) if known.private else candidate
        return Dropped(shown, "in a benchmark", f"{known.name}: {share:.0%} of its runs of {self.n} words")


def prose_of(question: str) -> str:
    """What a question of programs asks for, without tests, examples and code; empty where it holds nothing else.

    Example: prose_of('def f(s):\\n    \\"\\"\\" Return s.\\n    >>> f(1)\\n    1\\n    \\"\\"\\"') == " Return s.\\n" """
    text = _FENCED.sub("\n", question)
    text = "\n".join("".join(filter(None, m.groups())) for m in _DOCUMENTED.finditer(text)) or text
    for examples in _EXAMPLES.finditer(text):
        if text[: examples.start()].strip():
            text = text[: examples.start()]
            break
    return "" if text == question else text


def short_runs(question: str, n: int) -> set[str]:
    """Whole sentences and clauses that follow on each other, of fewer than `n` words; LEAST says which are too short."""
    parts = [words for part in _SENTENCE_ENDS.split(question) if (words := words_of(part))]
    found = set()
    for i in range(len(parts)):
        run: list[str] = []
        for part in parts[i:]:
            run += part
            if len(run) >= n:
                break
            if len(run) >= LEAST or numbers_of(run):
                found.add(" ".join(run))
    return found

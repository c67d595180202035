"""Translation of a share of the English problems (Magistral, arXiv 2506.10910, section 2.2.4), checked before it is believed.

A translation takes the place of its original, so that no problem is there twice. One that fails a check is given up, and the
original stays: formulas and numbers must be the same, the language the one asked for, and the answer still the reference.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from magistral.curation.candidate import Candidate
from magistral.curation.difficulty import Grader
from magistral.curation.words import numbers_of, words_of
from magistral.engines.ask import Asker, Journal
from magistral.recipe_data import TARGETS
from magistral.text.trace import parse
from magistral.verifiers.language import language_of

NAMES = {"fr": "French", "es": "Spanish", "it": "Italian", "de": "German", "zh": "Chinese", "ru": "Russian"}
_FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+\$|\\\[.+?\\\]|\\\(.+?\\\)", re.DOTALL)


class Translate:
    """Asks for the translations and looks at formulas, numbers and language."""

    name = "translation"

    def __init__(self, asker: Callable[[], Asker], journal: Path, *, share: float) -> None:
        self.asker, self.journal, self.share = asker, journal, share

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        aimed = ((c, target_of(c, self.share)) for c in candidates)
        questions = (((c, target), c.id, target and request_for(c.question, target)) for c, target in aimed)
        for asked in self.asker().ask(questions, 1, Journal(self.journal)):
            candidate, target = asked.thing
            yield self._translated(candidate, target, asked.answers[0].text if asked.answers else "") if target else candidate

    def _translated(self, candidate: Candidate, target: str, said: str) -> Candidate:
        text = parse(said).summary.strip()
        if fault := drift(candidate.question, text, target):
            return candidate.noted(self.name, f"given up: {fault}")
        translated = candidate.but(id=f"{candidate.id}-{target}", question=text, language=target)
        original = {"id": candidate.id, "question": candidate.question}
        return translated.noted("original", original).noted(self.name, f"into {NAMES[target]}")


class CheckAnswers:
    """Has the translated problems solved; the original comes back where no completion reaches the reference."""

    name = "translation-check"

    def __init__(self, grader: Callable[[], Grader], journal: Path) -> None:
        self.grader, self.journal = grader, journal

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for asked, votes in self.grader().grade(candidates, self.journal, lambda c: "original" in c.notes):
            candidate = asked.thing
            if "original" not in candidate.notes or (votes is not None and votes.n_right):
                yield candidate
            else:
                notes = {name: note for name, note in candidate.notes.items() if name != "original"}
                yield candidate.but(**candidate.notes["original"], language="en", notes=notes).noted(
                    self.name, "given up: no completion reaches the reference"
                )


def target_of(candidate: Candidate, share: float) -> str | None:
    """The language to translate into, by a hash of the name; None for those that stay: code, other languages, most English."""
    if candidate.language != "en" or candidate.kind == "code":
        return None
    digest = hashlib.sha256(f"translate/{candidate.id}".encode(errors="replace")).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    return TARGETS[digest[8] % len(TARGETS)] if drawn < share else None


def request_for(question: str, target: str) -> str:
    return (
        f"Translate this problem into {NAMES[target]}. Leave formulas and numbers exactly as they are, do not solve it, and "
        f"write nothing but the translation.\n\n{question}"
    )


def drift(question: str, translation: str, target: str) -> str:
    """What the translation changed that it must not; empty if nothing is seen."""
    if not translation:
        return "nothing came"
    if _formulas(question) != _formulas(translation):
        return "other formulas"
    if numbers_of(words_of(question)) != numbers_of(words_of(translation)):
        return "other numbers"
    spoken = language_of(translation, also=target)
    return f"it is in {spoken}" if spoken not in (target, None) else ""


def _formulas(text: str) -> Counter[str]:
    return Counter(re.sub(r"\s+", "", formula) for formula in _FORMULA.findall(text))

r"""Multiple choice, as GPQA asks it: options in an order of each completion's own, drawn by its seed; the key stays with us.

What was asked is stored with the order already in it, so that grading again never shuffles again.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Sequence

from magistral import __version__
from magistral.flow import Outcome, Problem, Trace, Verdict
from magistral.verifiers.answer import last_boxed
from magistral.verifiers.pool import Pool
from magistral.verifiers.spelling import normalise

LETTERS = "ABCDEFGHIJKLMNOP"
MAX_CHARACTERS = 4096
"""chosen: no option is longer."""
_WORDS = r"(?:option|choice|answer|the answer is)\s*:?\s*"
_LETTER = re.compile(rf"(?:{_WORDS})?[(\[]?([A-Pa-p])(?:[)\].:]+\s*(.*)|\s*)", re.DOTALL | re.IGNORECASE)
_HEDGE = re.compile(r"(?:\b(?:or|and)\b|[,;/&])\s*+[(\[]?[A-P](?![a-z])")
_LINE = re.compile(r"^[^\w\n]*+(?:final[ \t]+)?answer[^\w\n]*+(?:is[^\w\n]++)?(\S.*)$", re.IGNORECASE | re.MULTILINE)
_DRESS = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|mathsf)\s*\{([^{}]*)\}")


def ask(problem: Problem, options: Sequence[str], *, seed: int) -> Problem:
    """The problem as one completion sees it. `problem.reference` is the right option's text, the first of equal ones.

    Example: the question "…?" becomes "…?\n\nA) Paris\nB) Rome", the reference {"key": "A", "options": ["Paris", "Rome"]}."""
    assert problem.reference in options
    assert 2 <= len(options) <= len(LETTERS)
    order = list(options)
    random.Random(f"{problem.id}\0{seed}").shuffle(order)
    key = LETTERS[order.index(problem.reference)]
    lines = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, order, strict=False))
    return Problem(
        id=problem.id, question=f"{problem.question}\n\n{lines}", kind="choice", family=problem.family, language=problem.language,
        reference=json.dumps({"key": key, "options": order}, ensure_ascii=False),
    )  # fmt: skip


class ChoiceVerifier:
    def __init__(self, pool: Pool) -> None:
        """Needs no process."""

    def verify(self, trace: Trace, problem: Problem, *, draw: int = 0) -> Verdict:
        """The last box of the summary; without a box, the last line that begins with "Answer:"."""
        answer = last_boxed(trace.summary)
        if answer is None:
            lines = _LINE.findall(trace.summary)
            if not lines:
                return Verdict(outcome=Outcome.UNPARSABLE, reason="no \\boxed{} and no line that says Answer:", stage="format")
            answer = lines[-1].strip(" *_")
        return self.compare(answer, problem.reference)

    def compare(self, answer: str, reference: str) -> Verdict:
        """A bare answer: a letter, a letter with its option, or an option's own text. Two letters are no answer."""
        start = time.perf_counter()
        key, options = read_key(reference)
        if len(answer) > MAX_CHARACTERS:
            outcome, reason, said = Outcome.UNPARSABLE, f"the answer has {len(answer)} characters, over {MAX_CHARACTERS}", ""
        elif not key:
            outcome, reason, said = Outcome.ERROR, f"the reference {reference[:80]!r} is no letter", ""
        else:
            said = _letter(answer, options)
            outcome = Outcome.UNPARSABLE if not said else Outcome.RIGHT if said == key else Outcome.WRONG
            reason = f"{said} {'=' if said == key else 'is not'} {key}" if said else f"{answer[:80]!r} names no option"
        return Verdict(
            outcome=outcome, reason=reason, answer=answer[:200], stage="exact", read=(said, key),
            seconds=time.perf_counter() - start, versions=f"open-magistral {__version__}",
        )  # fmt: skip


def read_key(reference: str) -> tuple[str, list[str]]:
    """(letter, options): of `C`, `(C)` or what `ask` writes. The letter is empty if there is none."""
    try:
        data = json.loads(reference)
        key, options = str(data["key"]), [str(option) for option in data.get("options", ())]
    except (ValueError, TypeError, KeyError, AttributeError):
        key, options = _letter(reference, []), []
    return (key if re.fullmatch("[A-P]", key) else ""), options


def _letter(answer: str, options: list[str]) -> str:
    text = answer.strip().strip("$").strip()
    while (bare := _DRESS.sub(r"\1", text)) != text:
        text = bare.strip()
    text = text.strip(" *_.")
    named = [i for i, option in enumerate(options) if _plain(option) == _plain(answer)]
    if len(named) == 1:
        return LETTERS[named[0]]
    match = _LETTER.fullmatch(text)
    if match is None:
        return ""
    letter, said = match[1].upper(), match[2] or ""
    if options and (LETTERS.index(letter) >= len(options)):
        return ""
    if said and options and _plain(said) != _plain(options[LETTERS.index(letter)]):
        return ""  # a letter with another option's text says two things
    return "" if said and not options and (_LETTER.fullmatch(said) or _HEDGE.search(said)) else letter


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", normalise(_DRESS.sub(r"\1", text))).casefold().strip(" .$")

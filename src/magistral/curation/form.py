"""Form: what is complete and can be checked (Magistral, arXiv 2506.10910, section 4.1). Proofs and problems of several parts
are dropped, a multiple choice is asked as an open question where it can be.

The rules read English; another language's problems pass unless something here says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from magistral.curation.candidate import UNREADABLE, Candidate
from magistral.curation.stage import Dropped

NAME = "format"
MAX_REFERENCE = 300
"""Characters. chosen: a longer answer of a math problem is prose, which no verifier of ours reads."""

_PROOF = re.compile(
    r"(?:^|[.:;!?,$)\]]\s+|\n\s*|\b(?:and|then|hence|thus|please|also)\s+|\()"
    r"(?:prove|disprove|show\s+(?:that|how|why)|give\s+a\s+proof|derive\s+the|justify\s+(?:your|the|why)|verify\s+that"
    r"|demonstrate\s+that|explain\s+why)\b",
    re.IGNORECASE,
)
_PART = re.compile(
    r"(?:^|(?<=[\s.;:?!$]))(?:\(?(?P<a>[a-f]|i{1,3}|iv|[1-6])\)|(?:part|question)\s+(?P<b>[a-f1-6])\b\s*[:.)])", re.I
)
_LINE_PART = re.compile(r"^\s*(?P<a>[a-f]|i{1,3}|iv|[1-6])[.)]\s+(?=\S)", re.MULTILINE)
_PART_ASKS = re.compile(
    r"\?|\b(?:find|determine|compute|calculate|evaluate|solve|prove|show|what|how|sketch|simplify|write|draw)\b", re.IGNORECASE
)
_PICTURE = re.compile(
    r"!\[[^\]]*\]\([^)]*\)|<img\b|<image|\\includegraphics|\b(?:in|from|see)\s+the\s+(?:(?:given|adjoining|attached|accompanying)"
    r"\s+)?(?:figure|diagram|picture|image)\b|\b(?:figure|diagram|picture)\s+(?:below|above|shown|at\s+(?:the\s+)?(?:right|left))"
    r"|\bas\s+shown\b|\bshown\s+(?:below|above)\b",
    re.IGNORECASE,
)
_DRAWN = re.compile(r"\[asy\]|\\begin\{(?:tikzpicture|asy|array|tabular)|```", re.IGNORECASE)
_ELSEWHERE = re.compile(
    r"\b(?:previous|preceding|last)\s+(?:problem|question|part|exercise)\b|\bas\s+(?:in|before)\s+(?:problem|question|exercise)\s+\d"
    r"|\b(?:problem|exercise|question)\s+(?:above|\d+(?:\.\d+)*\s*[,(])",
    re.IGNORECASE,
)
_CUT = re.compile(r"(?:\.\.\.|…|[,;:(\[{=+*/-]|\b(?:the|of|and|or|if|with|is|are|a|an|to|that|such))\s*$", re.IGNORECASE)
_OPTION = re.compile(
    r"(?:^|(?<=\s)|(?<=[.;,?$]))(?:\\(?:textbf|text|mathrm|bf)\s*\{?\s*)?[($]*(?P<l>[A-H])\s*[).:]\s*\}?(?:\\[ ;,]|~|\s)*"
)
_BETWEEN = re.compile(r"^[\s,;$]+|(?:[\s,;$~]|\\q?quad|\\[ ,;]|\\textbf\{|\\$)+$")
_NEEDS_OPTIONS = re.compile(
    r"\bwhich\s+(?:one\s+)?(?:of|among)\s+(?:the\s+)?(?:following|these|those|below)\b|\bof\s+the\s+following\b|\bfollowing\s+"
    r"(?:statements?|options?|choices?|answers?)\b|\bselect\s+(?:all|the)\b|\bchoose\b|\b(?:the\s+)?closest\s+to\b|\bbest\s+describes\b",
    re.IGNORECASE,
)
_NO_OPTION = re.compile(
    r"^(?:none|all|both|neither|either|cannot\s+be|not\s+enough|insufficient|any)\b|\b(?:above|these)\b", re.I
)
_LETTER = re.compile(r"[\s($\\{]*(?:text|mathrm|textbf|boxed)?[{(\s]*([A-H])[\s)}.$]*")
_ASKS = re.compile(
    r"\?|\b(?:find|determine|compute|calculate|evaluate|solve|simplify|factor|express|what|how|which|who|when|where|write|give"
    r"|convert|expand|count|estimate|round|enter|state|list|name|graph|let|return|implement|output|print|work\s+out)\b",
    re.IGNORECASE,
)


def form(candidates: Iterator[Candidate]) -> Iterator[Candidate | Dropped]:
    return map(judged, candidates)


def judged(candidate: Candidate) -> Candidate | Dropped:
    """The candidate, as an open question if it was a choice; or why it is dropped."""
    if fault := candidate.notes.get(UNREADABLE):
        return Dropped(candidate, "cannot be read", fault)
    question = candidate.question.strip()
    if candidate.kind == "code":
        return candidate if question else Dropped(candidate, "incomplete", "no question")
    if len(question) < 8:
        return Dropped(candidate, "incomplete", f"the question is {question!r}")
    if not candidate.reference.strip():
        return Dropped(candidate, "incomplete", "no reference")
    if match := _PROOF.search(question):
        return Dropped(candidate, "proof", f"it says {match[0].strip()!r}")
    stem, options = _choice(candidate)
    if options:
        return _opened(candidate, stem, options)
    return _dropped(candidate, question) or candidate


def _dropped(candidate: Candidate, question: str) -> Dropped | None:
    """Why what is no multiple choice cannot stay."""
    if parts := _parts(question) or _parts(candidate.reference, must_ask=False):
        return Dropped(candidate, "several parts", f"parts {', '.join(parts)}")
    if len(candidate.reference) > MAX_REFERENCE:
        return Dropped(candidate, "uncheckable answer", f"the reference has {len(candidate.reference)} characters")
    if (match := _PICTURE.search(question)) and not _DRAWN.search(question):
        return Dropped(candidate, "incomplete", f"it needs a picture: {match[0]!r}")
    if match := _ELSEWHERE.search(question):
        return Dropped(candidate, "incomplete", f"it needs another problem: {match[0]!r}")
    if match := _CUT.search(question):
        return Dropped(candidate, "incomplete", f"it ends in {match[0].strip()!r}")
    if candidate.language == "en" and not _ASKS.search(question):
        return Dropped(candidate, "incomplete", "it asks for nothing")
    return None


def _parts(text: str, *, must_ask: bool = True) -> list[str]:
    """The names of at least two parts that follow on each other from the first, two of which ask something; else nothing.

    Conditions and cases, numbered as well, ask for nothing."""
    for pattern in (_PART, _LINE_PART):
        marks = list(pattern.finditer(text))
        ends = [*(m.start() for m in marks[1:]), len(text)]
        said = [(_name(m), bool(_PART_ASKS.search(text, m.end(), end))) for m, end in zip(marks, ends, strict=False)]
        for series in (tuple("abcdef"), ("i", "ii", "iii", "iv"), tuple("123456")):
            found = [name for name, asks in said if name in series and (asks or not must_ask)]
            named = [name for name, _ in said if name in series]
            if len(found) > 1 and named == list(series[: len(named)]):
                return found
    return []


def _name(mark: re.Match[str]) -> str:
    return next(name for name in mark.groups() if name).lower()


def _choice(candidate: Candidate) -> tuple[str, list[str]]:
    """(question without options, options); no options where it is no multiple choice."""
    question = candidate.question.strip()
    if candidate.options:
        return question, list(candidate.options)
    if not _LETTER.fullmatch(candidate.reference):
        return question, []
    marks = [m for m in _OPTION.finditer(question)]
    while marks:
        letters = [m["l"] for m in marks]
        if letters == list("ABCDEFGH"[: len(letters)]) and len(letters) > 1:
            ends = [*(m.start() for m in marks[1:]), len(question)]
            options = [_option(question[m.end() : end]) for m, end in zip(marks, ends, strict=True)]
            return question[: marks[0].start()].rstrip(" \n\t$\\{"), options
        marks.pop(0)
    return question, []


def _option(text: str) -> str:
    """Without what stands between options, and a brace that was opened before the letter."""
    text = _BETWEEN.sub("", text)
    return _BETWEEN.sub("", text[:-1]) if text.endswith("}") and text.count("}") > text.count("{") else text


def _opened(candidate: Candidate, stem: str, options: list[str]) -> Candidate | Dropped:
    """The choice as an open question, its answer the right option's own text."""
    letter = _LETTER.fullmatch(candidate.reference)
    answer = options["ABCDEFGH".index(letter[1])] if letter and "ABCDEFGH".index(letter[1]) < len(options) else ""
    if not letter and candidate.reference.strip() in options:
        answer = candidate.reference.strip()
    if not answer:
        return Dropped(candidate, "incomplete", f"no option {candidate.reference[:40]!r} among {len(options)}")
    if match := _NEEDS_OPTIONS.search(stem):
        return Dropped(candidate, "choice that needs its options", f"it says {match[0]!r}")
    if _NO_OPTION.search(answer) or len(answer.split()) > 6:
        return Dropped(candidate, "choice that needs its options", f"the answer is {answer[:80]!r}")
    opened = candidate.but(question=stem, reference=answer, options=(), kind="math")
    return _dropped(opened, stem) or opened.noted(NAME, "choice asked as an open question")

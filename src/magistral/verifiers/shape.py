"""The outer form of an answer: list, tuple, set, interval, union, matrix. What is inside is compared part by part."""

from __future__ import annotations

import re
from dataclasses import dataclass

from magistral.verifiers.spelling import is_name

_MATRIX = re.compile(r"\\begin\{([pbvBV]?)matrix\}(.*)\\end\{\1matrix\}", re.DOTALL)
_RELATION = re.compile(r"(\\le(?![a-z])|\\ge(?![a-z])|<|>)")
_OR = re.compile(
    r"\\cup(?![a-z])|\\text\{\s*(?:or|ou|oder|o|или|或|または|أو)\s*\}|\\lor(?![a-z])|(?<= )(?:or|ou|oder)(?= )|или|或|または|أو"
)
_BARE_AND = r"(?<![a-zA-Z])(?:and|et|und)(?= )|(?<=\d) [ey] (?=\d)|[и和与とو]"
"""Of the languages of the system; those that could be variables only between numbers."""
_WORDS = rf"[,;]? ?(?:\\text\{{[,;]?\s*(?:and|et|und|y|e|и|和|与|と|و)\s*\}}|{_BARE_AND})"
_AND = re.compile(rf"{_WORDS}|[,;]")
_LISTED = re.compile(rf"{_WORDS}|;|,(?!\d{{3}}(?!\d))")
"""Where `;` parts a list, a comma before three digits is one of thousands."""
_PM = re.compile(r"\\pm(?![a-z]) ?")
_OUTSIDE = re.compile(r"\](.*[,;].*)\[")  # ]0,1[ as written in Europe
_CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Shape:
    kind: str
    """list, union or matrix."""
    brackets: str
    """As "()", "[)", "{}"; empty for a bare list."""
    parts: tuple[str, ...]

    def meets(self, other: Shape) -> bool:
        """Whether the parts may be compared. chosen: a bare list meets a tuple and a set, never an interval with a closed end; a
        row or a column of numbers meets a tuple."""
        mine, its = self.brackets, other.brackets
        if len(self.parts) != len(other.parts):
            return False
        if self.kind != other.kind:
            return (
                {self.kind, other.kind} == {"list", "matrix"} and {mine, its} & {"()"} != set() and self._row() and other._row()
            )
        return mine == its or (self.kind == "list" and {mine, its} in ({"", "()"}, {"", "{}"}))

    def _row(self) -> bool:
        return self.kind == "list" or "1" in self.brackets.split("x")

    @property
    def ordered(self) -> bool:
        """chosen: order counts in (1, 2) and [1, 2], not in `1, 2` and {1, 2}, nor among the pieces of a union."""
        return self.kind == "matrix" or (self.kind == "list" and self.brackets not in ("", "{}"))


def shape_of(text: str) -> Shape | None:
    """None for a single value. `text` is normalised."""
    text = text.replace("\\{", "{").replace("\\}", "}")
    name, inside, rest = text.partition("\\in")
    if inside and is_name(name.strip()) and not rest[:1].isalpha():
        text = rest.strip()
    if match := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in re.split(r"\\\\", match[2]) if row.strip()]
        bars = match[1].strip("pbB")  # a determinant or a norm is a number
        size = bars + "x".join([str(len(rows)), *sorted({str(len(row)) for row in rows})])
        return Shape("matrix", size, tuple(cell.strip() for row in rows for cell in row))
    pieces = _split(text, _OR)
    if len(pieces) > 1 and "\\cup" not in text and all(shape_of(piece) is None for piece in pieces):
        return Shape("list", "", tuple(p for piece in pieces for p in _both_signs(piece)))  # `1 or 2` is 1, 2
    if len(pieces) > 1:
        return Shape("union", "", tuple(pieces))
    if (interval := _interval(text)) is not None:
        return interval
    if match := _OUTSIDE.fullmatch(text):
        text = f"({match[1]})"
    brackets, inner = _outer(text)
    parts = [p for item in _split(inner, _LISTED if ";" in inner else _AND) for p in _both_signs(item)]
    return Shape("list", brackets, tuple(parts)) if len(parts) > 1 else None


def _outer(text: str) -> tuple[str, str]:
    """Brackets that enclose the whole text, and what is inside; `(a+5)(b+2)` has none."""
    if len(text) < 2 or text[0] not in _CLOSES or text[-1] not in ")]}":
        return "", text
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if depth == 0:
            return (text[0] + text[-1], text[1:-1]) if i == len(text) - 1 else ("", text)
    return "", text


def _split(text: str, at: re.Pattern[str]) -> list[str]:
    """Parts between matches of `at` that no bracket encloses."""
    parts, depth, start, i = [], 0, 0, 0
    while i < len(text):
        match = at.match(text, i) if depth == 0 else None
        if match:
            parts.append(text[start:i].strip())
            start = i = match.end()
            continue
        depth += (text[i] in "([{") - (text[i] in ")]}")
        i += 1
    return [*parts, text[start:].strip()]


def _both_signs(item: str) -> list[str]:
    r"""`1 \pm \sqrt{19}` is two values."""
    if not _PM.search(item):
        return [item]
    return [_PM.sub("+", item).lstrip("+"), _PM.sub("-", item)]


def _interval(text: str) -> Shape | None:
    r"""`x\le 3` is (-\infty, 3], `2\le x<5` is [2, 5)."""
    sides = [side.strip() for side in _RELATION.split(text)]
    if any(c in text for c in ",;") or len(sides) not in (3, 5):
        return None
    if len(sides) == 3:
        left, relation, right = sides
        if not is_name(left):
            if not is_name(right):
                return None
            left, relation, right = right, {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[relation], left
        if relation in ("<", "\\le"):
            return Shape("list", "(" + ("]" if relation == "\\le" else ")"), ("-\\infty", right))
        return Shape("list", ("[" if relation == "\\ge" else "(") + ")", (right, "\\infty"))
    low, first, name, second, high = sides
    if not is_name(name) or ({first, second} - {"<", "\\le"} and {first, second} - {">", "\\ge"}):
        return None
    if first in (">", "\\ge"):
        low, first, second, high = high, second, first, low
    return Shape("list", ("[" if first in ("\\le", "\\ge") else "(") + ("]" if second in ("\\le", "\\ge") else ")"), (low, high))


def split_equation(text: str) -> list[str]:
    """Sides of an equation or a chain of them."""
    return _split(text, re.compile("="))

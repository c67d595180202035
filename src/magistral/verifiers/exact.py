"""Reading numbers and lists of numbers without a computer algebra system: most answers need no more, in microseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 4096
MAX_DIGITS = 1000
"""Beyond these an answer is unparsable: no honest one is that long."""

_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|;|!|:|quad|qquad)(?![a-zA-Z])|\\(?=\$)|\$")
_REPLACED = {"\\dfrac": "\\frac", "\\tfrac": "\\frac", "−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\\%": "%", "\\ ": " "}
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"([+-]?)\s*\\frac\s*(?:\{\s*([+-]?[\d.]+)\s*\}|(\d))\s*(?:\{\s*([+-]?[\d.]+)\s*\}|(\d))")
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:[,  ]\d{3})+(?:\.\d+)?")
_MIXED = re.compile(r"([+-]?)(\d+)\s+(\d+)\s*/\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    tolerance: Fraction = Fraction(0)
    """Half a unit of the last printed digit of a decimal with a fractional part; 0: exact."""


def normalise(text: str) -> str:
    """Spelling that does not change the meaning, taken out."""
    for old, new in _REPLACED.items():
        text = text.replace(old, new)
    text = _TEXT.sub(lambda m: m[1].strip(), _DROPPED.sub("", text))
    return re.sub(r"\s+", " ", text).strip().rstrip(".").strip()


def read_number(text: str) -> Number | None:
    """Integer, decimal, fraction, mixed number, percentage, thousands separated; None for anything else."""
    text = text.strip()
    if len(text) > MAX_DIGITS:
        return None
    if text.endswith("%"):
        return read_number(text[:-1])  # chosen: 50% equals 50, as most graders have it
    if match := _FRACTION.fullmatch(text):
        return _ratio(match[1], match[2] or match[3], match[4] or match[5])
    if match := _MIXED.fullmatch(text):
        part = _ratio("", match[3], match[4])
        return part and Number((-1 if match[1] == "-" else 1) * (int(match[2]) + part.value))
    top, slash, bottom = text.partition("/")
    if slash:
        return _ratio("", top.strip(), bottom.strip())
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"[,  ]", "", text)
    if not _DECIMAL.fullmatch(text):
        return None
    mantissa, _, exponent = text.lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    tolerance = Fraction(1, 2) * Fraction(10) ** (int(exponent or 0) - digits) if digits else Fraction(0)
    return Number(Fraction(text), tolerance)


def _ratio(sign: str, top: str, bottom: str) -> Number | None:
    if not (_DECIMAL.fullmatch(top) and _DECIMAL.fullmatch(bottom)) or Fraction(bottom) == 0:
        return None
    return Number((-1 if sign == "-" else 1) * Fraction(top) / Fraction(bottom))


def equal_numbers(answer: Number, reference: Number) -> bool:
    """Exact, unless the reference is a decimal: then within half a unit of its last digit, and the answer need not print more
    digits than the reference. An exact reference is met by no rounded answer."""
    return abs(answer.value - reference.value) <= reference.tolerance


def split_list(text: str) -> tuple[str, list[str]] | None:
    """('(]'-style brackets, parts) of `(1, 2)`, `[1, 2)` or `1, 2`; None where there is no list."""
    text = text.replace("\\{", "{").replace("\\}", "}").strip()
    brackets = ""
    if len(text) > 1 and text[0] in "([{" and text[-1] in ")]}":
        brackets, text = text[0] + text[-1], text[1:-1]
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return (brackets, parts) if len(parts) > 1 and all(parts) else None

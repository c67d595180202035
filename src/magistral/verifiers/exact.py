"""Numbers without a computer algebra system: most answers need no more, in microseconds, and exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 1000
"""Longer is no number: Fraction takes quadratic time over digits."""
DECIMAL_DIGITS = 3
"""chosen: a decimal reference with fewer significant digits (0.5, 2.5) is exact; half a unit of its last digit would be 10 %."""

_PLAIN = r"(?:\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"([+-]?)({_PLAIN})(?:[eE]([+-]?\d{{1,3}})|(?:\\times|\\cdot) ?10\^(?:\{{([+-]?\d{{1,3}})\}}|(\d)))?")
_POWER_OF_TEN = re.compile(r"([+-]?)10\^(?:\{([+-]?\d{1,3})\}|(\d))")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\{(\d+)\}|\((\d+)\))")
_FRACTION = re.compile(rf"([+-]?)(\d*) ?\\frac\{{([+-]?{_PLAIN})\}}\{{([+-]?{_PLAIN})\}}")
_SLASH = re.compile(rf"([+-]?)(?:(\d+) )?({_PLAIN})[/:]({_PLAIN})")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:([, ])\d{3})(?:\1\d{3})*(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    tolerance: Fraction = Fraction(0)
    """As a reference: half a unit of the last printed digit of a decimal; 0 where it is exact."""
    percent: bool = False


def read_number(text: str) -> Number | None:
    r"""Integer, decimal, scientific, repeating, fraction, ratio, mixed number, percentage, thousands by comma or space, in
    `normalise`d text; None for anything else.

    Example: read_number(r"-1\frac{4}{5}") is Number(Fraction(-9, 5))"""
    if len(text) > MAX_CHARACTERS:
        return None
    if text.endswith("%"):
        number = None if text.endswith("%%") else read_number(text[:-1])
        return number and Number(number.value, number.tolerance, percent=True)
    if _THOUSANDS.fullmatch(text):
        text = re.sub("[, ]", "", text)
    if match := _DECIMAL.fullmatch(text):
        return _decimal(match[1], match[2], int(match[3] or match[4] or match[5] or 0))
    if match := _POWER_OF_TEN.fullmatch(text):
        return Number(_signed(match[1], Fraction(10) ** int(match[2] or match[3])))
    if match := _REPEATING.fullmatch(text):
        sign, whole, fixed, repeated = match[1], match[2], match[3], match[4] or match[5]
        rest = Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(fixed))
        return Number(_signed(sign, Fraction(int(whole + fixed or 0), 10 ** len(fixed)) + rest))
    if match := _FRACTION.fullmatch(text) or _SLASH.fullmatch(text):
        sign, whole, top, bottom = match.groups()
        if Fraction(bottom) == 0 or (whole and not (top.isdecimal() and bottom.isdecimal())):
            return None
        return Number(_signed(sign, int(whole or 0) + Fraction(top) / Fraction(bottom)))
    return None


def _decimal(sign: str, digits: str, exponent: int) -> Number:
    fixed = len(digits.partition(".")[2])
    significant = len(digits.replace(".", "").lstrip("0"))
    rounded = fixed > 0 and significant >= DECIMAL_DIGITS
    tolerance = Fraction(10) ** (exponent - fixed) / 2 if rounded else Fraction(0)
    return Number(_signed(sign, Fraction(digits) * Fraction(10) ** exponent), tolerance)


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def equal_numbers(answer: Number, reference: Number) -> bool:
    """Exact, unless the reference is a decimal: then to within half a unit of its last digit. An exact reference is met by no
    rounded answer. chosen: where one side alone is a percentage, 50% meets both 50 and 0.5."""
    if answer.percent and not reference.percent:
        return any(abs(v - reference.value) <= reference.tolerance for v in (answer.value, answer.value / 100))
    if reference.percent and not answer.percent:
        return any(abs(v - reference.value) <= reference.tolerance for v in (answer.value, answer.value * 100))
    return abs(answer.value - reference.value) <= reference.tolerance

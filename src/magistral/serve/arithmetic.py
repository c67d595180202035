"""Reads arithmetic as people write it: numbers, units, some functions, exactly. What it does not read wholly, it does not read.

Where people differ in what they mean, it has several readings (`Reading`): a claim is wrong only where it is wrong in each.
Nothing is evaluated but by the grammar below, in fractions of a bounded size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Literal, NamedTuple

from magistral.serve.lexicon import UNITS, Token

MAX_BITS = 10_000
"""chosen: of a numerator or denominator; 1000! has 8530."""
LARGEST_FACTORIAL = 1000
LONGEST_NUMBER = 100
LONGEST_EXPONENT = 10
"""Characters."""
MAX_TOKENS = 200
MAX_DEPTH = 40
_ROOT_DIGITS = 40
_PI = Fraction(31415926535897932384626433832795028841971, 10**40)
_POINT = re.compile(r"(\d{1,3}(?:[,_'\u2019\u00a0\u202f]\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d+)(?:\.(\d+))?")
"""The second is how thousands are written in India."""
_COMMA = re.compile(r"(\d{1,3}(?:[._'\u2019\u00a0\u202f]\d{3})+|\d+)(?:,(\d+))?")


class Unreadable(Exception):
    """Not in the grammar, or too large: nothing is said about it."""


class TooLarge(Unreadable):
    """It has a meaning, that nobody works out: so it is not known to be wrong in every reading."""


class Reading(NamedTuple):
    """What a text may mean that has no one meaning."""

    comma: Literal["thousands", "decimal"]
    """`1,234` and `1.234`: English or German."""
    tight: bool
    """`6/2(1+2)` is 1, and `6 m / 2 s` a speed; else it is 9, and `1/2 h` is half an hour."""
    left_powers: bool
    """`2^3^2` is 64 and `-2^2` is 4."""
    wide_words: bool
    """`50% of 80 + 10` takes half of 90."""


_COMMAS: tuple[Literal["thousands", "decimal"], ...] = ("thousands", "decimal")


def readings_of(tokens: list[Token]) -> list[Reading]:
    """Those that differ for these."""
    kinds = {t.kind for t in tokens}
    marked = any(t.kind == "number" and not t.text.isdigit() for t in tokens)
    worded = "root" in kinds or any(t.kind in _OPERATIONS and t.text.replace(" ", "").isalpha() for t in tokens)
    return [
        Reading(comma, tight=tight, left_powers=left, wide_words=wide)
        for comma, tight, left, wide in product(
            _COMMAS[: 1 + marked],
            (True, False) if "/" in kinds else (True,),
            (False, True) if kinds & {"^", "sup"} else (False,),
            (False, True) if worded else (False,),
        )
    ]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Example: Quantity(Fraction(60), {"km": 1, "h": -1}) is 60 km/h"""

    number: Fraction
    """In the units as written."""
    units: Mapping[str, int]
    exact: bool = True
    """False with a root or pi in it, of which there are 40 digits."""
    percent: bool = False
    decimals: int | None = None
    """Of a number that stands alone: its digits after the point."""
    doubtful: bool = False
    """Read by a guess, such as `2 1/2`: good for a yes only."""

    def in_base_units(self) -> Fraction:
        return self.number * self.factor()

    def factor(self) -> Fraction:
        return math.prod((UNITS[u][0] ** n for u, n in self.units.items() if u in UNITS), start=Fraction(1))

    def dimensions(self) -> dict[str, int]:
        """What is in no table is a dimension of its own: apples are added to apples."""
        found: dict[str, int] = {}
        for unit, n in self.units.items():
            for name, power in UNITS[unit][1].items() if unit in UNITS else ((unit, 1),):
                found[name] = found.get(name, 0) + n * power
        return {name: n for name, n in found.items() if n}


def read(tokens: list[Token], reading: Reading) -> Quantity:
    if not tokens or len(tokens) > MAX_TOKENS:
        raise Unreadable
    reader = _Reader(tokens, reading)
    value = reader.sum(0)
    if reader.at < len(tokens):
        raise Unreadable
    return replace(value, doubtful=value.doubtful or reader.doubtful)


class _Reader:
    """Recursive descent; each method reads what it is named after, from `at` on."""

    def __init__(self, tokens: list[Token], reading: Reading) -> None:
        self.tokens, self.reading = tokens, reading
        self.at = 0
        self.doubtful = False

    def peek(self, *kinds: str) -> Token | None:
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        return token if token and token.kind in kinds else None

    def take(self, *kinds: str) -> Token | None:
        token = self.peek(*kinds)
        self.at += token is not None
        return token

    def need(self, kind: str) -> Token:
        token = self.take(kind)
        if token is None:
            raise Unreadable
        return token

    def sum(self, depth: int) -> Quantity:
        if depth > MAX_DEPTH:
            raise Unreadable
        value = self.product(depth)
        while sign := self.take("+", "-"):
            other = self.product(depth)
            value = _add(value, other if sign.kind == "+" else _negative(other))
        return value

    def product(self, depth: int) -> Quantity:
        value = self.factor(depth)
        while True:
            if operator := self.take("*", "/", "mod", "of") or self.percent_between():
                if operator.kind == "of" and not (value.percent or value.number.denominator > 1):
                    raise Unreadable  # `3 of 5` multiplies nothing
                wide = self.reading.wide_words and operator.text.replace(" ", "").isalpha()
                other = self.sum(depth + 1) if wide else self.factor(depth)
                value = _OPERATIONS[operator.kind](value, other)
            elif not self.reading.tight and self.is_juxtaposed():
                value = _times(value, self.power(depth))
            else:
                return value

    def percent_between(self) -> Token | None:
        """`17 % 5` is what programs write for a remainder."""
        following = self.tokens[self.at + 1 : self.at + 2]
        return self.take("%") if following and following[0].kind == "number" else None

    def factor(self, depth: int) -> Quantity:
        if depth > MAX_DEPTH:
            raise Unreadable
        if sign := self.take("-", "+"):
            if self.reading.left_powers and sign.kind == "-" and self.peek("number"):
                return self.juxtaposed(self.power(depth, negative=True), depth)
            value = self.factor(depth + 1)
            return _negative(value) if sign.kind == "-" else value
        return self.juxtaposed(self.power(depth), depth)

    def juxtaposed(self, value: Quantity, depth: int) -> Quantity:
        while self.reading.tight and self.is_juxtaposed():
            value = _times(value, self.power(depth))
        while value.units and self.peek("number"):  # `2 h 30 min`
            other = self.power(depth)
            if not self.peek("unit"):
                raise Unreadable
            value = _add(value, _times(other, self.power(depth)))
        return value

    def is_juxtaposed(self) -> bool:
        before = self.tokens[self.at - 1]
        if self.peek("unit"):
            return before.kind in ("number", "unit", "sup", ")", "pi")
        if self.peek("frac") and before.kind == "number":
            self.doubtful = True  # two and a half, or twice a half
        return self.peek("(", "root", "pi", "frac") is not None and before.kind in ("number", ")", "pi")

    def power(self, depth: int, *, negative: bool = False) -> Quantity:
        value = self.atom(depth)
        value = _negative(value) if negative else value
        while True:
            if self.take("!"):
                if self.peek("!"):
                    raise Unreadable
                value = _factorial(value)
            elif self.peek("%") and [t.kind for t in self.tokens[self.at + 1 : self.at + 2]] != ["number"]:
                self.at += 1
                value = _over(value, Quantity(Fraction(100), {}))
                value = replace(value, percent=True, decimals=None)
            elif sup := self.take("sup"):
                if len(sup.text) > LONGEST_EXPONENT:
                    raise TooLarge
                value = _power(value, Quantity(Fraction(sup.text), {}))
            elif self.take("^"):
                exponent = self.exponent(depth)
                value = _power(value, exponent)
            else:
                return value

    def exponent(self, depth: int) -> Quantity:
        sign = self.take("-")
        value = self.atom(depth + 1) if self.reading.left_powers else self.power(depth + 1)
        return _negative(value) if sign else value

    def atom(self, depth: int) -> Quantity:
        if depth > MAX_DEPTH:
            raise Unreadable
        if self.peek("number"):
            return self.number()
        if self.peek("unit"):
            return self.unit()
        if self.take("pi"):
            return Quantity(_PI, {}, exact=False)
        if root := self.take("root"):
            wide = self.reading.wide_words and not self.peek("(")
            return _root(self.sum(depth + 1) if wide else self.atom(depth + 1), 3 if root.text.startswith(("∛", "cbrt")) else 2)
        if self.take("frac"):
            return _over(self.bracket(depth + 1), self.bracket(depth + 1))
        return self.bracket(depth)

    def unit(self) -> Quantity:
        unit = self.need("unit")
        before = self.tokens[self.at - 2].kind if self.at > 1 else ""
        if unit.text in "€£¥" and self.peek("number"):
            return _times(Quantity(Fraction(1), {unit.text: 1}), self.number())
        if before not in ("number", "unit", "sup", ")", "/", "*", "pi"):
            raise Unreadable
        return Quantity(Fraction(1), {unit.text: 1})

    def bracket(self, depth: int) -> Quantity:
        function = self.take("(", "|", "abs", "factorial")
        if function is None:
            raise Unreadable
        if function.kind in ("abs", "factorial"):
            self.need("(")
        value = self.sum(depth + 1)
        self.need("|" if function.kind == "|" else ")")
        if function.kind == "factorial":
            return _factorial(value)
        return value if function.kind == "(" else replace(value, number=abs(value.number))

    def number(self) -> Quantity:
        value = self._number(self.need("number"))
        if not self.peek("number"):
            return value
        self.doubtful = True  # it may belong to something else
        before = self.at
        while (group := self.peek("number")) and re.fullmatch(r"\d{3}(?:[.,]\d+)?", group.text):  # 12 345
            self.at += 1
            rest = self._number(group)
            value = Quantity(value.number * 1000 + rest.number, {}, decimals=rest.decimals)
        if self.at > before:
            return value
        parts = self.tokens[self.at : self.at + 3]
        if [p.kind for p in parts] != ["number", "/", "number"] or value.number.denominator > 1:
            return value
        self.at += 3
        above, below = self._number(parts[0]), self._number(parts[2])
        if not 0 < above.number < below.number:
            raise Unreadable
        return Quantity(value.number + above.number / below.number, {})

    def _number(self, token: Token) -> Quantity:
        match = (_POINT if self.reading.comma == "thousands" else _COMMA).fullmatch(token.text)
        if match is None or len(token.text) > LONGEST_NUMBER:
            raise Unreadable
        whole, fixed = re.sub(r"\D", "", match[1]), match[2] or ""
        return Quantity(Fraction(int(whole + fixed), 10 ** len(fixed)), {}, decimals=len(fixed))


def _sized(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise TooLarge
    return number


def _add(a: Quantity, b: Quantity) -> Quantity:
    if a.dimensions() != b.dimensions() or a.percent != b.percent:  # 100 + 10% is 110 to some
        raise Unreadable
    number = _sized(a.number + b.number * b.factor() / a.factor())
    return Quantity(number, a.units, exact=a.exact and b.exact, percent=a.percent)


def _negative(a: Quantity) -> Quantity:
    return replace(a, number=-a.number)


def _times(a: Quantity, b: Quantity, sign: int = 1) -> Quantity:
    units = dict(a.units)
    for unit, n in b.units.items():
        units[unit] = units.get(unit, 0) + sign * n
    number = _sized(a.number * b.number if sign > 0 else a.number / b.number)
    alone = a.decimals if b.units and b.number == 1 and sign > 0 else None  # still alone, now with a unit
    alone = b.decimals if a.units and a.number == 1 and not b.units and sign > 0 else alone  # €5
    return Quantity(number, {u: n for u, n in units.items() if n}, exact=a.exact and b.exact, decimals=alone)


def _over(a: Quantity, b: Quantity) -> Quantity:
    if b.number == 0:
        raise Unreadable
    result = _times(a, b, -1)
    return replace(result, decimals=a.decimals) if b.units and b.number == 1 else result


def _modulo(a: Quantity, b: Quantity) -> Quantity:
    if a.units or b.units or not (a.exact and b.exact) or b.number <= 0:
        raise Unreadable
    return Quantity(a.number % b.number, {})


_OPERATIONS = {"*": _times, "of": _times, "/": _over, "mod": _modulo, "%": _modulo}


def _factorial(a: Quantity) -> Quantity:
    if a.units or not a.exact or a.number.denominator > 1 or a.number < 0:
        raise Unreadable
    if a.number > LARGEST_FACTORIAL:
        raise TooLarge
    return Quantity(Fraction(math.factorial(a.number.numerator)), {})


def _power(a: Quantity, b: Quantity) -> Quantity:
    if b.units or a.percent or b.percent or not b.exact:
        raise Unreadable
    if b.number.denominator in (2, 3):
        return _power(_root(a, b.number.denominator), Quantity(Fraction(b.number.numerator), {}))
    size = max(a.number.numerator.bit_length(), a.number.denominator.bit_length())
    if b.number.denominator > 1 or (a.number == 0 and b.number <= 0):
        raise Unreadable
    if size * abs(b.number) > MAX_BITS:
        raise TooLarge
    n = b.number.numerator
    alone = a.decimals if a.units and a.number == 1 else None
    return Quantity(a.number**n, {u: k * n for u, k in a.units.items() if n}, exact=a.exact, decimals=alone)


def _root(a: Quantity, n: int) -> Quantity:
    """The real one; exact where it is a fraction."""
    if a.units or (a.number < 0 and n == 2):
        raise Unreadable
    above, below = (_whole_root(part, n) for part in (abs(a.number.numerator), a.number.denominator))
    sign = -1 if a.number < 0 else 1
    if above**n == abs(a.number.numerator) and below**n == a.number.denominator:
        return Quantity(sign * Fraction(above, below), {}, exact=a.exact)
    scale = 10**_ROOT_DIGITS
    return Quantity(sign * Fraction(_whole_root(int(abs(a.number) * scale**n), n), scale), {}, exact=False)


def _whole_root(number: int, n: int) -> int:
    if n == 2:
        return math.isqrt(number)
    low, high = 0, 1 << (number.bit_length() // n + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**n <= number else (low, middle - 1)
    return low

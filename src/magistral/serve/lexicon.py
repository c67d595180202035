"""The words of checked traces: what is arithmetic, what are units, and what may stand beside a step without changing it."""

# ruff: noqa: RUF001 - it is about characters that look alike

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple


class Token(NamedTuple):
    """Example: Token(kind="number", text="1,234", start=3, end=8). An operator's kind is its sign; see `_PATTERNS`."""

    kind: str
    text: str
    start: int
    end: int


_LENGTH = """m 1|meter 1|metre 1|meters 1|metres 1|km 1000|dm 1/10|cm 1/100|mm 1/1000|kilometer 1000|kilometers 1000
kilometre 1000|kilometres 1000|centimeter 1/100|centimeters 1/100|inch 0.0254|inches 0.0254|ft 0.3048|foot 0.3048|feet 0.3048
yd 0.9144|yard 0.9144|yards 0.9144|mile 1609.344|miles 1609.344|米 1|厘米 1/100|公里 1000|千米 1000"""
_TIME = """s 1|sec 1|second 1|seconds 1|min 60|mins 60|minute 60|minutes 60|h 3600|hr 3600|hrs 3600|hour 3600|hours 3600|day 86400
days 86400|week 604800|weeks 604800|ms 1/1000|Stunde 3600|Stunden 3600|Minuten 60|Sekunden 1|heures 3600|heure 3600
horas 3600|hora 3600|minutos 60|小时 3600|分钟 60|秒 1"""
_MASS = (
    """g 1|kg 1000|mg 1/1000|gram 1|grams 1|kilogram 1000|kilograms 1000|千克 1000|公斤 1000|克 1|lb 453.59237|lbs 453.59237"""
)
_VOLUME = "l 1/1000|L 1/1000|ml 1/1000000|mL 1/1000000|liter 1/1000|liters 1/1000|litre 1/1000|litres 1/1000"
_TABLE: list[tuple[str, dict[str, int]]] = [
    (_LENGTH, {"length": 1}),
    (_TIME, {"time": 1}),
    (_MASS, {"mass": 1}),
    (_VOLUME, {"length": 3}),
    ("mph 0.44704", {"length": 1, "time": -1}),
    ("N 1000", {"mass": 1, "length": 1, "time": -2}),
    ("J 1000|kJ 1000000", {"mass": 1, "length": 2, "time": -2}),
    ("W 1000|kW 1000000", {"mass": 1, "length": 2, "time": -3}),
]
UNITS: Mapping[str, tuple[Fraction, dict[str, int]]] = {
    name: (Fraction(size), dimensions)
    for entries, dimensions in _TABLE
    for name, size in (entry.split() for entry in re.split(r"[|\n]", entries))
}
"""How many base units one is, and its dimensions. What means several things (t, oz, cup) is left out."""

_COUNTED = "apple orange banana people student book page card cookie marble ball item pomme manzana Äpfel 个苹果"
COUNTED = frozenset(_COUNTED.split())
"""One of which is one, never a dozen: `3 * 4 = 13 apples` is wrong though it has no unit on its left."""

_CONNECTORS = """
so then thus hence therefore and but or also now next first second third finally since because that this it is are we have get
gets got gives give equals compute calculate check verify wait hmm ok okay yes no well actually indeed where which if when while
pays costs cost covers makes has needs spends earns sells with means let's it's that's simply just
again here using obtain find see know
also dann und aber oder ist sind das es wir haben ergibt gilt wegen da denn weil folglich daher deshalb damit somit nun jetzt
kostet kosten beträgt zuerst erst danach schließlich nämlich rechne rechnen prüfe prüfen probe wenn
donc alors et mais ou est sont on a obtient avons calcule calculons or puis ensuite enfin car parce que vérifions vérifie
coûte cuesta ainsi soit d'abord d'où c'est
entonces luego y pero o es son tenemos obtenemos calculamos porque pues así después primero finalmente ya que verificamos e
quindi poi è sono perché abbiamo então mas são temos
所以 因此 得 得到 是 即 为 有 则 于是 故 那么 先算 再算 计算 首先 然后 接着 最后 因为 又 且 而 也就是 可得 我们有 我们得到 验证
检查
"""
CONNECTORS = frozenset(_CONNECTORS.split())
"""Beside a step they leave it as it is. Any other word may be a function, a unit, or turn the sense around."""

_JOINING = "and or und oder et ou y e o a"
JOINING = frozenset(_JOINING.split())
"""They may join two numbers of what stands before: `the sum of 3 and 4 + 2`."""

_NUMBERED = "step case line part option question example schritt fall étape cas paso caso 步骤 第"
NUMBERED = frozenset(_NUMBERED.split())
"""Before a number and a colon, which divides otherwise."""

SPECIAL = re.compile(
    r"(?<![a-z])(?:mod|modulo|modular|modulus|remainder|reste|resto|congruen\w*|binary|binär\w*|binaire|binario|hexa\w*|octal|clock"
    r"|(?:in|to|zur|en) (?:base|basis)|bas(?:e|is)[ -]?\d+|rest (?:von|bei|\d+)|restklasse\w*|xor|boolean|defin\w*|operation"
    r"|operator|opération|operación|[a-z] ?\* ?[a-z] ?=[^=\n]*[a-z])(?![a-z])|≡|\\p?mod|\\equiv|取余|模|进制|余|定义|运算",
    re.IGNORECASE,
)
"""Where these are near, a number may be meant modulo another, or in another base, or a sign may mean what was agreed."""

_W = r"(?![^\W\d_])"
_APPROXIMATELY = (
    r"(?:about|approximately|approx\.?|roughly|around|nearly|almost|circa|ca\.|etwa|ungefähr|rund"
    r"|environ|aproximadamente|unos|约)"
)
_PATTERNS: dict[str, str] = {
    "space": r"[ \t\u00a0\u202f$&]+|\\[,;:! ]|\\(?:left|right|quad|qquad|boxed|big|Big|displaystyle|limits)(?![a-zA-Z])|\\\$",
    "fence": r"\\[()\[\]]",
    "arrow": r">=|[→⇒⟹⇔>]|[-=]>|\\(?:to|implies|Rightarrow|rightarrow|iff)(?![a-zA-Z])|[<≤≥]=?|\\[lg]eq?(?![a-zA-Z])",
    "~": r"(?:=\s*)?(?:[≈≃≅~∼≒]|\\(?:approx|simeq|cong|sim)(?![a-zA-Z]))"
    rf"(?:\s*{_APPROXIMATELY}{_W})?|==?\s*{_APPROXIMATELY}{_W}",
    "≡": r"≡|\\equiv(?![a-zA-Z])",
    "other": r"!=|≠|[:+*/^-]=|===+|\\neq?(?![a-zA-Z])|\.\.\.+|…|\\[lc]?dots",
    "=": r"==?",
    "number": r"\d+(?:[.,'’_\u00a0\u202f]\d+)*|(?<![\w.])\.\d+",
    "sup": r"[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+",
    "^": r"\*\*(?=\s*[\d(\-])(?<=[\d) ]\*\*)|\^|(?:to the power of|hoch|élevé à la puissance)(?![^\W\d_])",
    "*": rf"[*×·⋅∙]|\\(?:times|cdot)(?![a-zA-Z])|(?:times|multiplied by|mal|fois|multiplié par|multiplicado por|por|乘以|乘){_W}",
    "/": rf"[/÷]|\\div(?![a-zA-Z])|(?:divided by|geteilt durch|divisé par|dividido (?:por|entre)|entre|durch|除以){_W}",
    "+": rf"\+|(?:plus|más|加上?){_W}",
    "-": rf"[-−–]|(?:minus|moins|menos|减去?){_W}",
    "of": rf"(?:of|von|de|del|di|des){_W}",
    "mod": rf"(?:modulo|mod|\\bmod|\\p?mod){_W}",
    "remainder": rf"(?:with )?(?:remainder|rem\.?|Rest|reste|resto|avec reste|con resto|余){_W}|(?-i:R)(?=\s*\d)",
    "squared": rf"(?:squared|cubed|al cuadrado|au carré|zum Quadrat|的平方){_W}",
    "root": r"[√∛]|\\?sqrt(?![a-zA-Z\[])|cbrt(?=\s*\()|(?:the )?square root of(?!\w)"
    r"|(?:die )?(?:Quadratw|W)urzel (?:aus|von)(?!\w)"
    r"|(?:la )?racine carrée de(?!\w)|(?:la )?raíz cuadrada de(?!\w)|根号",
    "abs": r"abs(?=\s*\()",
    "factorial": r"factorial(?=\s*\()|the factorial of(?!\w)",
    "frac": r"\\[dt]?frac(?![a-zA-Z])",
    "pi": r"π|\\pi(?![a-zA-Z])|pi(?!\w)",
    "text": r"\\(?:text|mathrm|mbox)\{[^{}]*\}",
    "%": rf"\\?%|(?:percent|per cent|Prozent|pour cent|por ciento){_W}",
    "(": r"[(\[{]",
    ")": r"[)\]}]",
    "|": r"\|",
    "!": r"!",
    "unit": r"°[CF]?|[€£¥元]",
    "word": r"[\u3400-\u9fff]+|[^\W\d_\u3400-\u9fff](?:['’]?[^\W\u3400-\u9fff⁰¹²³⁴-⁹])*",
    "punct": r"\\\\|[.,;:?\"“”„«»`。，；：、！？—_#]",
    "unknown": r".",
}
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_WIDE = str.maketrans("０１２３４５６７８９＋－＝（）％＊／", "0123456789+-=()%*/")
_LEXER = re.compile("|".join(f"(?P<k{n}>{pattern})" for n, pattern in enumerate(_PATTERNS.values())), re.IGNORECASE)
_KINDS = list(_PATTERNS)
_VALUED = ("number", ")", "unit", "sup", "%", "!", "pi")
"""What an expression may end in."""


def tokens_of(line: str) -> list[Token]:
    """Spaces are left out; single letters are names, or units after a number."""
    found: list[Token] = []
    for match in _LEXER.finditer(line.translate(_WIDE)):
        kind, text = _KINDS[int((match.lastgroup or "k0")[1:])], match[0]
        if kind != "space":
            found += _refined(kind, text, match.start(), match.end(), found, line)
    return found


def _refined(kind: str, text: str, start: int, end: int, before: list[Token], line: str) -> list[Token]:
    last = before[-1].kind if before else ""
    if kind == "text":
        inner = text[text.index("{") + 1 : -1].strip()
        (kind, text) = ("word", inner) if re.fullmatch(r"[^\W\d_]+", inner) else ("unknown", text)
    if kind == "sup":
        text = text.translate(_SUPERSCRIPT)
    if kind == "squared":
        return [Token("sup", "3" if text.casefold() == "cubed" else "2", start, end)]
    if kind == "word":
        kind, text = _word(text, start, end, last, line)
    glued = last in _VALUED and before[-1].end == start
    if kind == "punct" and text == ":" and last in _VALUED and not (glued and not line[end : end + 1].strip()):
        kind = "unknown" if glued and re.match(r"\d\d", line[end:]) else "/"  # a time of day, or what divides
    return [Token(kind, text, start, end)]


def _word(text: str, start: int, end: int, last: str, line: str) -> tuple[str, str]:
    low = text.casefold()
    between_numbers = last in _VALUED and re.match(r"\s*[\d(√]", line[end:]) is not None
    if low == "x" and between_numbers:
        return "*", "×"
    joins = last in _VALUED and re.match(r"\s+(?:[\d(√]|[^\W\d_]{2})", line[end:]) is not None
    if low in ("y", "e", "o", "u", "a") and joins and line[start - 1] == " ":
        return "word", "y"  # Spanish and Italian: and, or, to
    if text in UNITS and (last in ("number", "unit", "/", "sup") or (last in (")", "*", "pi") and len(text) > 1)):
        return "unit", text
    if len(text) == 1 and text.isascii():
        return "name", text
    if last == "number" and low not in CONNECTORS:
        return "unit", low if low in ("people",) else text.rstrip("s") if len(text) > 3 else text
    return "word", text

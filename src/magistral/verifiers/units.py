"""Units, and the words that people put after a number."""

from __future__ import annotations

import re

_LETTER = r"[^\W\d_]"
_UNIT = re.compile(rf"(.*[^\\ ]) ?\\text\{{\s*({_LETTER}(?:{_LETTER}|[. /])*?)\s*\}}(?:\^\{{?([1-3])\}}?)?")
_BARE_UNIT = re.compile(
    rf"(.*[0-9}}]) ?((?:{_LETTER}{{2,}}|[^\W\d_a-zA-Z])(?:/[a-zA-Z]+)?(?: {_LETTER}+){{0,2}})(?:\^\{{?([1-3])\}}?)?"
)
_DEGREES = re.compile(r"(.+?)\^(?:\{\\circ\}|\\circ)")
_UNITS = """
cm centimeter centimeters centimetre centimetres | mm millimeter millimeters | m meter meters metre metres
km kilometer kilometers kilometre kilometres | in inch inches | ft foot feet | yd yard yards | mi mile miles
g gram grams | kg kilogram kilograms | lb lbs pound pounds | oz ounce ounces | l L liter liters litre litres
ml mL milliliter milliliters | s sec second seconds | min minute minutes | h hr hour hours | day days | week weeks
month months | year years | degree degrees | rad radian radians | dollar dollars | cent cents | euro euros | gbp | yen 円
mph | km/h kmh | unit units | way ways 通り | people 人 名 | student students | 元 | 个 個 つ | 只 | 本 | 枚 | 次 | 种 | 回
"""
_CANON = {alias: row.split()[0] for row in re.split(r"[|\n]", _UNITS.strip()) for alias in row.split()}
_CHANGES = """
hundred thousand million billion trillion dozen half double triple square squared cube cubed root factorial times plus minus
percent third quarter fourth fifth sixth seventh eighth ninth tenth twelfth hundredth thousandth millionth pair score
"""
_SCALES = frozenset(_CHANGES.split())
_FILLERS = frozenset(["per", "each", "every", "a"])
_HEDGES = frozenset(["or", "and", "not", "no", "of", "than", "about", "more", "less", "any", "all"])


def split_unit(text: str, question: frozenset[str] = frozenset()) -> tuple[str, str]:
    r"""(value, unit in its one spelling) of `5\text{cm}^2`: ("5", "cm^2"); unit empty where there is none.

    Without `\text`, a unit is one we know or, after a space, a word of the question (`18 eggs`); Chinese and Japanese need no
    space. `90^\circ` is 90 with the unit "degree", unless a function takes it (`\tan 45^\circ`)."""
    if (match := _DEGREES.fullmatch(text)) and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        return match[1], "degree"
    match = _UNIT.fullmatch(text)
    if match is None and (match := _BARE_UNIT.fullmatch(text)):
        last = match[2].split()[-1].lower()
        if last not in _CANON and not (_asked_for(last, question) and (f" {match[2]}" in text or not _spaced(last))):
            match = None
    if match is None:
        return text, ""
    name, power = re.sub(r"\s+", " ", match[2].strip(" .")), (match[3] or "").replace("1", "")
    name = name if len(name) == 1 else name.lower()  # 5 M is no 5 m
    for prefix, means in (("square ", "2"), ("sq. ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if name.startswith(prefix):
            name, power = name.removeprefix(prefix), means
    name = _CANON.get(name, name)
    return match[1].strip(), f"{name}^{power}" if power else name


def may_be_left_out(unit: str, question: frozenset[str]) -> bool:
    """Whether an answer with this unit meets a reference without one: a known unit, or words of the question (`18 eggs`).

    Never a word that changes the number (`5 thirds`) or hedges (`5 or anything`)."""
    words = unit.partition("^")[0].split()
    if any(w.removesuffix("s") in _SCALES or w in ("halves", "squares") or w in _HEDGES for w in words):
        return False
    return all(w in _CANON or _asked_for(w, question) or w in _FILLERS for w in words) and words[:1] != []


def _asked_for(word: str, question: frozenset[str]) -> bool:
    """Whether it is a word of the question; in a script without spaces, whether it stands in there."""
    return word in question or (not _spaced(word) and any(word in text for text in question))


def _spaced(word: str) -> bool:
    """Whether its script puts spaces between words: not so Chinese and Japanese."""
    return not any("\u3040" <= c <= "\u9fff" for c in word)

"""Characters beyond ASCII as LaTeX has them: digits of any script, super- and subscripts, fractions, signs, Chinese numbers."""

from __future__ import annotations

import re
import unicodedata

_SIGNS = str.maketrans(
    dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-")
    | {
        "\u066b": ".",
        "\u066c": ",",
        "\u066a": "%",
        "\u3001": ";",
        "\u060c": ";",
        "\u2044": "/",
        "\u2215": "/",
        "\u00ba": r"^\circ ",
    }
    | {"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "°": r"^\circ "}
    | {"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": "=", "∈": r"\in ", "±": r"\pm ", "∅": r"\emptyset ", "…": r"\ldots "}
    | {"∪": r"\cup ", "∩": r"\cap ", "ℝ": r"\mathbb{R}", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "∠": r"\angle "}
)
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b\u207f]+")
_LOWERED = re.compile("[\u2080-\u208b]+")
_WIDE_COMMA = re.compile(r"\uff0c(?!\d{3}(?!\d))")
"""Beside three digits it may stand for thousands."""
_MONEY = (("€", "euros"), ("£", "gbp"), ("¥", "yen"))

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_GROUPS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "兆": 10**12}
_LARGEST = 10**40
"""chosen: nobody writes more than that with 万 and 亿."""
_WHOLE = f"[{''.join([*_DIGITS, *_UNITS, *_GROUPS])}]+"
_CHINESE = re.compile(rf"([负負-]?)(?:(百分之)?({_WHOLE})(?:[点點]([{''.join(_DIGITS)}]+))?|({_WHOLE})分之({_WHOLE}))")


def plain_characters(text: str) -> str:
    """The same in ASCII where we know how; whatever else is left as it is.

    Example: plain_characters("٢٧") is "27", of "x²" "x^{2}", of "三分之一" "\\\\frac{1}{3}"."""
    if text.isascii():
        return text
    if (number := _chinese(text.strip())) is not None:
        return number
    text = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _LOWERED.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = _WIDE_COMMA.sub(";", text).strip()
    for sign, name in _MONEY:
        if text != sign and (text.startswith(sign) or text.endswith(sign)):
            text = f"{text.removeprefix(sign).removesuffix(sign).strip()}\\text{{{name}}}"
    return "".join(map(_plain, text.translate(_SIGNS))).translate(_SIGNS)


def _plain(c: str) -> str:
    if c.isascii():
        return c
    if (digit := unicodedata.digit(c, None)) is not None:
        return str(digit)
    category = unicodedata.category(c)
    if category in ("Zs", "Cf"):
        return " " if category == "Zs" else ""
    kind, _, rest = unicodedata.decomposition(c).partition(" ")
    if kind == "<fraction>":
        top, _, bottom = "".join(chr(int(code, 16)) for code in rest.split()).partition("\u2044")
        return f"\\frac{{{top}}}{{{bottom}}}"
    return unicodedata.normalize("NFKC", c) if kind in ("<wide>", "<font>", "<narrow>") else c


def _chinese(text: str) -> str | None:
    """Of a text that is a number in Chinese or Japanese and nothing else; None for any other."""
    match = _CHINESE.fullmatch(text)
    if match is None:
        return None
    sign = "-" if match[1] else ""
    if match[5]:
        bottom, top = _whole(match[5]), _whole(match[6])
        return None if top is None or bottom is None else f"{sign}\\frac{{{top}}}{{{bottom}}}"
    whole = _whole(match[3])
    fixed = "".join(str(_DIGITS[c]) for c in match[4] or "")
    return None if whole is None else f"{sign}{whole}{'.' + fixed if fixed else ''}{'%' if match[2] else ''}"


def _whole(text: str) -> int | None:
    """`一百零五` is 105, `二〇二五` 2025; None for what is no number (`百百`)."""
    if all(c in _DIGITS for c in text):
        return int("".join(str(_DIGITS[c]) for c in text)) if len(text) < 400 else None
    total = section = digit = 0
    last = 10**16
    for c in text:
        if c in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[c]
        elif c in _UNITS:
            if _UNITS[c] >= last:
                return None
            section, digit, last = section + (digit or 1) * _UNITS[c], 0, _UNITS[c]
        else:
            total, section, digit, last = (total + section + digit) * _GROUPS[c], 0, 0, 10**16
            if total > _LARGEST:
                return None
    return total + section + digit

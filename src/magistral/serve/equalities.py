"""Finds the equalities in a text, and what stands beside them: that decides whether they are whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from magistral.serve.lexicon import CONNECTORS, JOINING, NUMBERED, SPECIAL, Token, tokens_of

LONGEST_LINE = 10_000
"""Characters of a line that are looked through."""
NEAR = 500
"""Characters before a step in which modular arithmetic and the like may have been agreed upon."""
_RELATIONS = ("=", "~", "≡")
_OPERATORS = ("+", "-", "*", "/", "^", "of", "mod")
_CALCULATING = (*_OPERATORS, "!", "%", "sup", "root", "frac", "abs", "factorial", "|")
_RUN = (*_CALCULATING, "number", "(", ")", "unit", "name", "pi")
_BULLET = re.compile(r"^\s*(?:[*•]\s+)?(?:\(?\d{1,3}[.)]\s+)?(?:[*_`]+(?=\d))?")
_HARMLESS = (*_RELATIONS, "arrow", "fence", ")")
_SIGNS = ("=", "≈", "≃", "≅", "≡", "\uff1d", "\\approx", "\\equiv")
_CUT = "\ufffd"
"""Stands for the rest of a line: an expression that ends there is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    """One link of a chain, as found: `so 17 * 3 = 51` has left `17 * 3` and right `51`."""

    left: tuple[Token, ...]
    right: tuple[Token, ...]
    relation: str
    """`=`, `~` for about, `≡` for congruent."""
    at: int
    texts: tuple[str, str]
    doubt: str = ""
    """Why it may be right or wrong by what stands beside it: then it is neither."""
    certain: bool = True
    """Nothing follows that may change its value, nor was special arithmetic agreed upon: it can be wrong."""

    @property
    def says_modulus(self) -> bool:
        return any(t.kind in ("mod", "remainder") for t in (*self.left, *self.right))


def find_steps(thinking: str) -> Iterator[Equality]:
    """Every equality that calculates something; a chain gives one for each link."""
    at, before = 0, ""
    for line in thinking.splitlines(keepends=True):
        cut = line[:LONGEST_LINE] + (_CUT if len(line) > LONGEST_LINE else "")
        if len(line) > 3 and any(sign in cut for sign in _SIGNS):
            found = list(_of_line(cut.rstrip(), before, at))
            special = found and SPECIAL.search(thinking[max(0, at - NEAR) : at] + cut) is not None
            yield from (replace(e, certain=e.certain and (e.says_modulus or not special)) for e in found)
        at += len(line)
        before = line[-LONGEST_LINE:].strip() or before


def _of_line(line: str, before: str, at: int) -> Iterator[Equality]:
    start = match.end() if (match := _BULLET.match(line)) else 0
    tokens = tokens_of(" " * start + line[start:])  # a bullet is no sign
    for i, token in enumerate(tokens):
        if token.kind not in _RELATIONS:
            continue
        first, end = _run_to(tokens, i), _run_from(tokens, i + 1)
        left = _without_stars(tokens[first:i])
        what, right = _what_follows(tokens, i + 1, end)
        if not left or not right or not _calculates(left, right):
            continue
        before_line = "the line before may go on in it" if first == 0 and _goes_on(before, line.lstrip()[:1]) else ""
        half = first and tokens[first - 1].kind == "(" and not any(t.kind == ")" for t in tokens[end:])
        yield Equality(
            left=tuple(left),
            right=tuple(right),
            relation=token.kind,
            at=at + left[0].start,
            texts=(line[left[0].start : left[-1].end], line[right[0].start : right[-1].end]),
            doubt=_doubt_before(tokens, first) or before_line or what or ("half a bracket" if half else ""),
            certain=_leaves_whole(tokens, end),
        )


def _run_to(tokens: list[Token], end: int) -> int:
    """Where the expression begins that ends there."""
    first, depth = end, 0
    while first and _belongs(tokens[first - 1]):
        depth += {")": 1, "(": -1}.get(tokens[first - 1].kind, 0)
        if depth < 0:
            break
        first -= 1
    return first


def _run_from(tokens: list[Token], first: int) -> int:
    end, depth = first, 0
    while end < len(tokens) and _belongs(tokens[end]):
        depth += {"(": 1, ")": -1}.get(tokens[end].kind, 0)
        if depth < 0:
            break
        end += 1
    return end


def _belongs(token: Token) -> bool:
    return token.kind in _RUN


def _calculates(left: list[Token], right: list[Token]) -> bool:
    """There is something to calculate, or to convert; brackets are whole."""
    if any(sum(t.kind == "(" for t in side) != sum(t.kind == ")" for t in side) for side in (left, right)):
        return False
    if all(any(t.kind == "unit" for t in side) for side in (left, right)):
        return True
    return any(t.kind in _CALCULATING for side in (left, right) for t in (side[1:] if side[0].kind == "-" else side))


def _without_stars(side: list[Token]) -> list[Token]:
    """Markdown: `**3 + 4 = 7**`."""
    while side and set(side[0].text) == {"*"} and len(side) > 1 and side[0].end == side[1].start:
        side = side[1:]
    return side


def _goes_on(before: str, sign: str) -> bool:
    """Whether the line before may belong to the first expression of this one. What both begin with is the mark of a list."""
    last = tokens_of(before[-80:])[-1:]
    if not last:
        return False
    if last[0].kind in (*_OPERATORS, *_RELATIONS, "(", "root", "abs", "frac", "factorial", "unknown"):
        return True
    return sign in ("+", "-", "*", "\u2212", "\u00d7") and before[:1] != sign and last[0].kind in ("number", ")", "unit", "name")


def _doubt_before(tokens: list[Token], first: int) -> str:
    """Why the expression that begins at `first` may be the end of a longer one."""
    if (
        tokens[first].kind in ("+", "*", "/", "^", "of", "mod", "!", "%", "sup")
        and _without_stars(tokens[first:])[0].kind != "number"
    ):
        return f"what {tokens[first].text!r} follows is not read"
    if first == 0:
        return ""
    last, earlier = tokens[first - 1], tokens[: first - 1]
    if last.kind == "(" and earlier and earlier[-1].end == last.start and earlier[-1].kind in ("word", "name", "unknown"):
        return "a function is not read"
    if last.kind in (*_RELATIONS, "arrow", "fence", "("):
        return ""
    if last.kind == "word" and _connects(last.text, last=True):
        joins = last.text.casefold() in JOINING and any(t.kind in ("number", ")") for t in earlier[-2:])
        return f"what stands before {last.text!r} may belong to it" if joins and not _ends_an_equality(earlier) else ""
    if last.kind == "punct" and _separates(last, earlier):
        return ""
    return f"{last.text[:40]!r} before it is not read"


def _connects(word: str, *, last: bool) -> bool:
    """Chinese has no spaces: there the last, or first, characters decide."""
    if word.casefold() in CONNECTORS:
        return True
    ends = word.endswith if last else word.startswith
    return "\u3400" <= word[0] <= "\u9fff" and any(ends(c) for c in CONNECTORS if "\u3400" <= c[0] <= "\u9fff")


def _separates(mark: Token, earlier: list[Token]) -> bool:
    if mark.text in "\"'`“”„«»#_":
        return not earlier
    before = earlier[-1] if earlier else None
    if before is None or before.kind == "punct":
        return True
    if before.kind == "word":
        return mark.text not in "." or len(before.text) > 2
    if mark.text in ":":  # `Step 1: 3 + 4`, but `12: 3 + 1` is 5
        return len(earlier) > 1 and earlier[-2].text.casefold() in NUMBERED
    return _ends_an_equality(earlier) or mark.text in "\u3002\uff1b;"


def _ends_an_equality(tokens: list[Token]) -> bool:
    """As in `17 * 3 = 51 and`, not in `the sum of 3 and`."""
    end = len(tokens) - (tokens[-1].kind == "punct")
    first = _run_to(tokens, end)
    return 0 < first < end and tokens[first - 1].kind in (*_RELATIONS, "remainder")


def _what_follows(tokens: list[Token], first: int, end: int) -> tuple[str, list[Token]]:
    """Why what follows may go on with the right side; and that side, without what only looks like part of it."""
    right, following = tokens[first:end], tokens[end] if end < len(tokens) else None
    if following and following.kind == "remainder":
        rest = tokens[end + 1 : end + 2]
        return ("", [*right, following, *rest]) if rest and rest[0].kind == "number" else ("the remainder is not read", right)
    doubt = ""
    while right and right[-1].kind in (*_OPERATORS, "|"):
        bold = set(right[-1].text) == {"*"} and len(right) > 1 and right[-2].end == right[-1].start
        if following and not bold:
            doubt = "what follows it is not read"
        right = right[:-1]
    known = following is None or following.kind in (*_HARMLESS, "punct", "(", "word", "remainder")
    return doubt or ("" if known else f"{following.text[:40]!r} after it is not read" if following else ""), right


def _leaves_whole(tokens: list[Token], end: int) -> bool:
    """Whether what follows an expression cannot change its value."""
    following = tokens[end] if end < len(tokens) else None
    if following is None or following.kind in (*_HARMLESS, "remainder"):
        return True
    if following.kind == "punct":  # `0.(3)`
        return following.text not in ".:" or end + 1 == len(tokens) or following.end < tokens[end + 1].start
    return following.kind == "word" and _connects(following.text, last=False)

"""What a program gave against what was expected; on our side of the box, where the program cannot reach."""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any

from magistral.verifiers.tests import Compare

MAX_UNORDERED = 1000
"""chosen: items of longer collections must be spelt alike, since otherwise each is compared with each."""
MAX_NUMBER = 2000
"""chosen: a longer word is read as no number; the longest exact float has under 1100 characters."""


def same_output(output: str, expected: str, how: Compare, tolerance: float) -> str:
    """Empty if they are the same, else where they differ.

    exact: to the letter, but for line ends and space at the very end. tokens: the words, whatever space lies between.
    float: the words, numbers to within `tolerance`. unordered: the same lines in any order, spaces aside.
    No more of `output` is read than decides, since a program may write 16 MB."""
    if how == "exact":
        return _differ(output.replace("\r\n", "\n").rstrip(), expected.replace("\r\n", "\n").rstrip())
    if how == "unordered":
        return _differ_in_lines(output, expected)
    for n, (a, b) in enumerate(zip_longest(_words(output), _words(expected), fillvalue=""), 1):
        if a != b and not (how == "float" and _close_words(a, b, tolerance)):
            return f"word {n} is {_named(a)}, expected {_named(b)}"
    return ""


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(r"\S+", text))


def _named(word: str) -> str:
    return repr(word[:60]) if word else "nothing"


def _differ_in_lines(output: str, expected: str) -> str:
    left = Counter(_lines(expected))
    longest = max((line.count(" ") + 1 for line in left), default=0)
    for line in _lines(output, longest + 1):
        left[line] -= 1
        if left[line] < 0:
            return f"the line {line[:60]!r} is not expected, or not so often"
    missing = next(iter(+left), None)
    return "" if missing is None else f"the line {missing[:60]!r} is expected once more"


def _lines(text: str, n_words: int | None = None) -> Iterator[str]:
    """Those that are not empty, with one space between words, of which no more than `n_words` are read."""
    lines = (" ".join(islice(_words(match[0]), n_words)) for match in re.finditer(r"[^\r\n]+", text))
    return filter(None, lines)


def _differ(output: str, expected: str) -> str:
    if output == expected:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(output, expected, strict=False)) if a != b), min(len(output), len(expected)))
    return f"from character {at + 1} on it is {output[at : at + 40]!r}, expected {expected[at : at + 40]!r}"


def _close_words(a: str, b: str, tolerance: float) -> bool:
    if "_" in a or not a.isascii() or len(a) > MAX_NUMBER:  # float() takes 1_000 and digits of any script, too
        return False
    try:
        return _close(float(a), float(b), tolerance)
    except ValueError:
        return False


def _close(a: float, b: float, tolerance: float) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return a == b or (math.isnan(a) and math.isnan(b))
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def told_line(stdout: bytes, nonce: str) -> str | None:
    """What stands after the nonce; None unless that was written once."""
    parts = stdout.split(f"\n{nonce} ".encode(), 2)
    return parts[1].partition(b"\n")[0].decode(errors="replace") if len(parts) == 2 else None


def told_value(line: str) -> Any:
    """A value as inside/call.py tells it. Raises ValueError for anything else: what comes out of a box is hostile."""
    try:
        return _untold(json.loads(line), 0)
    except (TypeError, KeyError, IndexError, OverflowError, RecursionError) as e:
        raise ValueError(f"{type(e).__name__}: {e}") from None


def _untold(value: Any, depth: int) -> Any:
    if depth > 80:
        raise ValueError("nested too deep")
    if value is None or isinstance(value, (bool, str)):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{str(value)[:40]!r} is no told value")
    kind, *items = value
    if kind == "i":
        return int(items[0], 16) if "x" in items[0] else int(items[0])
    if kind in ("f", "c"):
        numbers = [float(item) for item in items]
        return numbers[0] if kind == "f" else complex(*numbers)
    if kind == "b":
        return bytes.fromhex(items[0])
    if kind == "d":
        return _Pairs((_untold(k, depth + 1), _untold(v, depth + 1)) for k, v in items)
    parts = [_untold(item, depth + 1) for item in items]
    return {"l": list, "t": tuple, "s": _Bag}[kind](parts)


class _Bag(list[Any]):
    """What was a set: its order means nothing."""


class _Pairs(list[tuple[Any, Any]]):
    """What was a dict, keys of any kind."""


def same_value(value: Any, expected: Any, how: Compare, tolerance: float) -> bool:
    """Lists and tuples are one kind (JSON has one), a set meets a list in any order, keys compare as JSON writes them,
    1, 1.0 and true are equal as in Python. Text that is expected of what is no text is read as a Python literal."""
    try:
        if isinstance(expected, str) and not isinstance(value, str):
            expected = ast.literal_eval(expected)
        return _same(value, expected, how, tolerance)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # no literal; an integer too long to be spelt
        return False


def _same(value: Any, expected: Any, how: Compare, tolerance: float) -> bool:
    if isinstance(expected, dict):
        if not isinstance(value, _Pairs) or len(value) != len(expected):
            return False
        known = {_key(k): v for k, v in expected.items()}
        keys = [_key(k) for k, _ in value]
        return known.keys() == set(keys) and all(
            _same(v, known[key], how, tolerance) for key, (_, v) in zip(keys, value, strict=True)
        )
    if isinstance(expected, (list, tuple, set, frozenset)):
        if not isinstance(value, (list, tuple)) or isinstance(value, _Pairs) or len(value) != len(expected):
            return False
        if how == "unordered" or isinstance(value, _Bag) or isinstance(expected, (set, frozenset)):
            return _same_bag(list(value), list(expected), how, tolerance)
        return all(_same(v, e, how, tolerance) for v, e in zip(value, expected, strict=True))
    if how == "float" and isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        try:
            return _close(float(value), float(expected), tolerance)
        except OverflowError:
            return bool(value == expected)
    return type(value) is type(expected) and value == expected if isinstance(expected, (str, bytes)) else bool(value == expected)


def _same_bag(value: list[Any], expected: list[Any], how: Compare, tolerance: float) -> bool:
    if Counter(map(_spelt, value)) == Counter(map(_spelt, expected)):
        return True
    if len(expected) > MAX_UNORDERED:
        return False
    left = list(value)
    for e in expected:
        found = next((i for i, v in enumerate(left) if _same(v, e, how, tolerance)), None)
        if found is None:
            return False
        del left[found]
    return True


def _spelt(value: Any) -> str:
    return json.dumps(value, default=str, sort_keys=True)


def _key(key: Any) -> str:
    """As JSON writes it: 1 and "1" are one key, there."""
    return key if isinstance(key, str) else json.dumps(key, default=str)

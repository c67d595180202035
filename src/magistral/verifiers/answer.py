"""Where the answer stands in a text."""

from __future__ import annotations

_BOX = "\\boxed"


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}`, nested braces kept; None without one. An empty last box is an empty answer, and an
    unclosed one is no answer: an earlier box never stands in for a later one."""
    at = text.rfind(_BOX)
    if at < 0:
        return None
    rest = text[at + len(_BOX) :].lstrip()
    if not rest.startswith("{"):
        return None
    depth = 0
    for i, c in enumerate(rest):
        if c in "{}" and not (i > 0 and rest[i - 1] == "\\"):
            depth += 1 if c == "{" else -1
            if depth == 0:
                return rest[1:i].strip()
    return None

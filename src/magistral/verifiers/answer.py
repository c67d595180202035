"""Where the answer stands in a text."""

from __future__ import annotations

import re

_MARK = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_CODE = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]+)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}`, nested braces kept; None without one. A box in a box is part of what the outer one says.

    An earlier box never stands in for a later one: an empty last box is an empty answer, an unclosed one is no answer."""
    opened: list[tuple[int, bool]] = []
    start, end = -1, -1
    for mark in _MARK.finditer(text):  # an escape as \{ or \\ is one match, and no brace
        if mark[0][-1] == "{" and mark[0] != "\\{":
            opened.append((mark.end(), len(mark[0]) > 1))
        elif mark[0] == "}" and opened and opened[-1][1]:
            start, end = opened.pop()[0], mark.start()
        elif mark[0] == "}" and opened:
            opened.pop()
    if start < 0 or any(box and begin > start for begin, box in opened):
        return None
    return re.sub(r"\\boxed\s*(?=\{)", "", text[start:end]).strip()


def first_code_block(text: str) -> tuple[str, str] | None:
    """(language, code) of the first closed block in triple backticks that names its language; None without one."""
    block = _CODE.search(text)
    return (block[1].lower(), block[2]) if block else None

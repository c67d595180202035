"""The process that does computer algebra, so that it can be killed: `python -m magistral.verifiers.symbolic`.

A line in: ["answer", "reference"]. A line out: ["right" | "wrong" | "unparsable" | "error", reason]. No text is ever evaluated:
LaTeX is parsed by grammar (latex2sympy2_extended), never by eval, sympify or parse_expr.
"""

from __future__ import annotations

import json
import os
import resource
import sys

MEMORY_BYTES = 2 << 30


def equal(answer: str, reference: str) -> tuple[str, str]:
    from latex2sympy2_extended import latex2sympy
    from sympy import Basic, simplify

    def read(text: str) -> Basic | str:
        try:
            value = latex2sympy(text)
        except Exception as e:  # noqa: BLE001 - the grammar raises anything on bad input
            return f"{type(e).__name__}"
        return value if isinstance(value, Basic) else "no expression"

    right_side = read(reference)
    if isinstance(right_side, str):
        return "error", f"the reference {reference[:80]!r} cannot be read: {right_side}"
    left_side = read(answer)
    if isinstance(left_side, str):
        return "unparsable", f"the answer cannot be read: {left_side}"
    if left_side == right_side:
        return "right", f"read as {left_side}"
    try:
        same = simplify(left_side - right_side) == 0  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - relations, sets and the like do not subtract: then only equal form counts
        same = False
    return ("right" if same else "wrong"), f"read as {left_side} against {right_side}"[:300]


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not speak for us
    equal("x", "x")  # imports, before the clock of a question runs
    print(json.dumps("ready"), file=channel, flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        answer, reference = json.loads(line)
        try:
            result = equal(answer, reference)
        except (RecursionError, MemoryError) as e:
            result = ("unparsable", f"too large to compare: {type(e).__name__}")
        print(json.dumps(result), file=channel, flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    main()

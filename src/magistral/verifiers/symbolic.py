"""The process that does computer algebra, so that it can be killed: `python -m magistral.verifiers.symbolic DEADLINE_S`.

It imports what it needs, then forks a child that answers; when that dies, the next one. Lines are JSON.
In: [n, "answer", "reference", "value" | "equation", "tolerance as a fraction"]. Out: ["ready", process id] of a new child;
then for each question ["reference read", n] and [n, "right" | "wrong" | "unparsable" | "error", reason, answer as read, reference
as read]. No text is ever evaluated: LaTeX is parsed by grammar (latex2sympy2_extended), never by eval, sympify or parse_expr.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TextIO

GROWTH_BYTES = 80 << 20
"""chosen: what one child may take beyond the imported libraries, so that a worker stays under 150 MB."""
QUESTIONS = 500
"""chosen: SymPy's caches grow; after so many questions a new child takes over, in milliseconds."""
DIGITS = 40
"""chosen: values that differ are told apart by their first digits; simplifying is for those that do not."""
PROOF_DIGITS = 300
"""chosen: what agrees to 200 digits wherever it is tried is taken for equal, though SymPy cannot prove it."""
POINTS = ("0.7390851332", "1.3247179572", "0.2614972128")
"""Where formulas with variables are tried: any numbers that nothing special happens at."""

_DECIMAL = re.compile(r"(\^?)(\d*)\.(\d+)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\^(?:\{\\circ\}|\\circ)")


def equal(
    answer: str, reference: str, mode: str = "value", tolerance: str = "0", reference_read: Callable[[], None] = lambda: None
) -> tuple[str, str, str, str]:
    """Outcome, reason, how both sides were read. In mode "equation" both are to be zero: equal up to a number as factor."""
    r = _read(reference)
    if isinstance(r, str):
        return "error", f"the reference {reference[:80]!r} cannot be read: {r}", "", ""
    reference_read()
    a = _read(answer)
    if isinstance(a, str):
        return "unparsable", f"the answer cannot be read: {a}", "", _shown(r)
    compare = _same_equation if mode == "equation" else partial(_same, tolerance=tolerance)
    try:
        same = compare(a, r)
    except Exception as e:  # noqa: BLE001 - SymPy fails in its own ways on what was read
        compare(1 + 2 * r, r)  # if that fails, too, it is not the answer's fault
        return "unparsable", f"the answer cannot be compared: {type(e).__name__}: {e}"[:200], _shown(a), _shown(r)
    return ("right" if same else "wrong"), f"read as {_shown(a)} against {_shown(r)}", _shown(a), _shown(r)


@lru_cache(maxsize=128)  # a group asks for one reference many times
def _read(text: str) -> Any:
    """A SymPy expression, or why there is none."""
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import Expr, I, Symbol

    text = _DEGREES.sub(r"(\1\\pi/180)", text)
    text = _DECIMAL.sub(_as_fraction, text)
    try:
        value = latex2sympy(text, conversion_config=ConversionConfig(lowercase_symbols=False))
        if not isinstance(value, Expr):
            return f"{type(value).__name__} is no formula"
        value = value.subs(Symbol("i"), I).doit().replace(_is_odd_root, lambda e: (-1) ** e.exp.p * (-e.base) ** e.exp)
    except (RecursionError, MemoryError) as e:
        return f"too large: {type(e).__name__}"
    except Exception as e:  # noqa: BLE001 - the grammar raises anything on bad input
        return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[:100]
    return value if isinstance(value, Expr) else f"{type(value).__name__} is no formula"


def _is_odd_root(e: Any) -> bool:
    """Of a negative number: school's cube root of -8 is -2, SymPy's is complex."""
    return bool(e.is_Pow and e.exp.is_Rational and e.exp.q > 1 and e.exp.q % 2 == 1 and e.base.is_negative)


def _as_fraction(decimal: re.Match[str]) -> str:
    """Exact, unlike a float."""
    power, whole, fixed = decimal.groups()
    fraction = f"\\frac{{{int(whole + fixed)}}}{{1{'0' * len(fixed)}}}"
    return f"^{{{fraction}}}" if power else f"({fraction})"


def _shown(value: Any) -> str:
    try:
        return str(value)[:120]
    except ValueError:  # Python prints no integer of over 4300 digits
        return "a number too long to print"


def _same(a: Any, r: Any, tolerance: str = "0") -> bool:
    from sympy import Rational, simplify

    if a == r:
        return True
    limit = Rational(tolerance)
    if limit and not a.free_symbols and not r.free_symbols:
        return bool(abs((a - r).evalf(DIGITS)) <= limit)
    points = POINTS if a.free_symbols | r.free_symbols else POINTS[:1]
    if any(_near(a, r, point, DIGITS) is False for point in points):
        return False
    if a.free_symbols | r.free_symbols and _near(a, r, POINTS[0], DIGITS, signed=True) is False:
        return False  # |x| is not x
    rest = simplify(a - r)
    if rest == 0 or rest.equals(0) is True:
        return True
    if rest.is_Rational or a.is_Rational or r.is_Rational:
        return False  # a rounded number may print any number of digits
    return all(_near(a, r, point, PROOF_DIGITS) for point in points)


def _near(a: Any, r: Any, point: str, digits: int, *, signed: bool = False) -> bool | None:
    """Whether both have one value, to two thirds of the digits, where the variables are at `point`; None: no telling.

    If `signed`, every other variable is negative, and values that are not real say nothing: a formula in roots or logarithms is
    meant where it is real."""
    from sympy import Rational

    symbols = sorted(a.free_symbols | r.free_symbols, key=str)
    values = {s: Rational(point) + Rational(k * k + k, 7) for k, s in enumerate(symbols)}
    values = {s: -v if signed and k % 2 == 0 else v for k, (s, v) in enumerate(values.items())}
    a, r = (side.subs(values).evalf(digits) for side in (a, r))
    if not (a.is_number and r.is_number and a.is_finite and r.is_finite) or (signed and not (a.is_real and r.is_real)):
        return None
    size = abs(a) + abs(r)
    return bool(size == 0 or abs(a - r) / size < Rational(1, 10 ** (2 * digits // 3)))


def _same_equation(a: Any, r: Any) -> bool:
    from sympy import simplify

    if a.free_symbols != r.free_symbols or not r.free_symbols:
        return False
    factor = simplify(a / r)
    return bool(factor.is_number and factor.is_finite and factor != 0)


def answer_questions(channel: TextIO, alarm_s: int) -> None:
    """Until the input ends, or a new child is to take over."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory()

    def tell(*words: object) -> None:
        print(json.dumps(words), file=channel, flush=True)

    tell("ready", os.getpid())
    for _ in range(QUESTIONS):
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        signal.alarm(alarm_s)  # the kernel ends us, should whoever asks have died in the middle of a question
        n, answer, reference, mode, tolerance = json.loads(line)
        try:
            result = equal(answer, reference, mode, tolerance, reference_read=partial(tell, "reference read", n))
        except (RecursionError, MemoryError) as e:
            result = ("unparsable", f"too large to compare: {type(e).__name__}", "", "")
        except Exception as e:  # noqa: BLE001 - no judgement, said aloud
            result = ("error", f"{type(e).__name__}: {e}"[:200], "", "")
        signal.alarm(0)
        tell(n, *result)
    os._exit(1)


def _limit_memory() -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS refuses the limit; the deadline still holds
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + GROWTH_BYTES, taken + GROWTH_BYTES))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our input
    alarm_s = math.ceil(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0) + 5
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not speak for us
    equal("x+\\frac{1}{2}", "x+\\sqrt{2}")  # imports and first use, once for all children
    gc.freeze()
    while True:
        child = os.fork()
        if child == 0:
            answer_questions(channel, alarm_s)
        if os.waitpid(child, 0)[1] == 0:
            return


if __name__ == "__main__":
    main()

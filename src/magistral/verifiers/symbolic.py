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
import random
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
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
SIZES = ((1, 5), (5, 15), (15, 300))
"""Tenths between which a variable is tried: below a half, where roots of what is bounded are real, around 1, and far out."""
MAX_PATTERNS = 7
"""chosen: all ways of giving up to three variables a sign, but for all positive."""

_DECIMAL = re.compile(r"(\^?)(\d*)\.(\d+)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\^(?:\{\\circ\}|\\circ)")


def equal(
    answer: str, reference: str, mode: str = "value", tolerance: str = "0", reference_read: Callable[[], None] = lambda: None
) -> tuple[str, str, str, str]:
    """Outcome, reason, how both sides were read. In mode "equation" both are to be zero: equal up to a number as factor."""
    r = _read_reference(reference)
    if isinstance(r, str):
        return "error", f"the reference {reference[:80]!r} cannot be read: {r}", "", ""
    reference_read()
    a = _read(answer)
    if isinstance(a, str):
        return "unparsable", f"the answer cannot be read: {a}", "", _shown(r)
    compare = _same_equation if mode == "equation" else partial(_same, tolerance=tolerance)
    try:
        same = compare(a, r)
    except (MemoryError, SystemError):
        raise
    except Exception as e:  # noqa: BLE001 - SymPy fails in its own ways on what was read
        compare(1 + 2 * r, r)  # if that fails, too, it is not the answer's fault
        return "unparsable", f"the answer cannot be compared: {type(e).__name__}: {e}"[:200], _shown(a), _shown(r)
    return ("right" if same else "wrong"), f"read as {_shown(a)} against {_shown(r)}", _shown(a), _shown(r)


def _read(text: str) -> Any:
    """A SymPy expression, or why there is none. Raises MemoryError, or SystemError where the library has none left."""
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
    except (MemoryError, SystemError):
        raise
    except RecursionError:
        return "nested too deep"
    except Exception as e:  # noqa: BLE001 - the grammar raises anything on bad input
        return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[:100]
    return value if isinstance(value, Expr) else f"{type(value).__name__} is no formula"


_read_reference = lru_cache(maxsize=128)(_read)
"""A group asks for one reference many times."""


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
    from sympy import Rational, Symbol, simplify

    if a == r:
        return True
    limit = Rational(tolerance)
    if limit and not a.free_symbols and not r.free_symbols:
        apart = (a - r).evalf(DIGITS)
        return bool(apart.is_number and apart.is_finite and abs(apart) <= limit)
    points = list(_points(a, r))
    if any(_near(a, r, point, DIGITS) is False for point in points):
        return False
    rest = simplify((a - r).subs({s: Symbol(s.name, positive=True) for s in a.free_symbols | r.free_symbols}))
    proven = True if rest == 0 else rest.equals(0)
    if proven is not None:
        return bool(proven)
    if rest.is_Rational or a.is_Rational or r.is_Rational:
        return False  # a rounded number may print any number of digits
    told = [_near(a, r, point, PROOF_DIGITS) for point in points]
    return True in told and False not in told


def _points(a: Any, r: Any) -> Iterator[dict[Any, Any]]:
    """Where to try two formulas: all variables positive, small, middling and large; then with signs. Drawn by both texts, so that
    a judgement can be repeated, and nobody writes a formula that vanishes just there."""
    from sympy import Rational

    symbols = sorted(a.free_symbols | r.free_symbols, key=str)
    if not symbols:
        yield {}
        return
    draw = random.Random(f"{a}\0{r}")

    def value(size: int) -> Any:
        return Rational(draw.randint(SIZES[size][0] * 10**9, SIZES[size][1] * 10**9), 10**10)

    for size in (1, 0, 2, 2, 2):
        yield {s: value(size) for s in symbols}
    for pattern in range(1, 1 + MAX_PATTERNS):
        signs = [pattern >> k & 1 if k < 3 else draw.randint(0, 1) for k in range(len(symbols))]
        if any(signs) and pattern < 2 ** len(symbols):
            for size in ((0, 1, 2, 2), (1, 2), (pattern % 3,))[min(len(symbols), 3) - 1]:
                yield {s: -value(size) if sign else value(size) for s, sign in zip(symbols, signs, strict=True)}


def _near(a: Any, r: Any, point: dict[Any, Any], digits: int) -> bool | None:
    """Whether both have one value, to two thirds of the digits, where the variables are at `point`; None: no telling.

    chosen: a formula in roots or logarithms is meant where they are real. So there is no telling where one is not that has a
    variable in it, where one side alone is real, nor where neither is and a variable is negative."""
    from sympy import Rational

    if any(_imaginary(side, point) for side in (a, r)):
        return None
    a, r = (side.subs(point).evalf(digits) for side in (a, r))
    if not (a.is_number and r.is_number and a.is_finite and r.is_finite):
        return None
    if point and (a.is_real != r.is_real or (not a.is_real and any(v < 0 for v in point.values()))):
        return None
    size = abs(a) + abs(r)
    return bool(size == 0 or abs(a - r) / size < Rational(1, 10 ** (2 * digits // 3)))


def _imaginary(formula: Any, point: dict[Any, Any]) -> bool:
    """Whether it has a root or a logarithm of what is negative at the point: `\\sqrt{a}\\sqrt{b}` is `\\sqrt{ab}`."""
    from sympy import Pow, log

    taken = [e.base for e in formula.atoms(Pow) if not e.exp.is_integer] + [e.args[0] for e in formula.atoms(log)]
    return any(of.free_symbols and of.subs(point).evalf(15).is_negative for of in taken)


def _same_equation(a: Any, r: Any) -> bool:
    from sympy import simplify

    if a.free_symbols != r.free_symbols or not r.free_symbols:
        return False
    factor = simplify(a / r)
    return bool(factor.is_number and factor.is_finite and factor != 0)


def answer_questions(channel: TextIO, alarm_s: int) -> None:
    """Until the input ends, or a new child is to take over."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    limit = _resident() + GROWTH_BYTES // 2
    _limit_memory()

    def tell(*words: object) -> None:
        try:
            print(json.dumps(words), file=channel, flush=True)
        except BrokenPipeError:  # whoever asked is dead; with another exit a new child would take over, again and again
            os._exit(0)

    tell("ready", os.getpid())
    for done in range(QUESTIONS):
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        signal.alarm(alarm_s)  # the kernel ends us, should whoever asks have died in the middle of a question
        n, answer, reference, mode, tolerance = json.loads(line)
        result = _without_dying(partial(equal, answer, reference, mode, tolerance, partial(tell, "reference read", n)))
        if result is None and done:
            os._exit(1)  # what was asked before took the memory: a new child is asked again
        signal.alarm(0)
        tell(n, *(result or ("unparsable", "too large to compare", "", "")))
        if result is None or _resident() > limit:  # SymPy keeps what it has worked out
            break
    os._exit(1)


def _without_dying(ask: Callable[[], tuple[str, str, str, str]]) -> tuple[str, str, str, str] | None:
    """None where memory ran out."""
    try:
        return ask()
    except (MemoryError, SystemError):
        return None
    except RecursionError as e:
        return ("unparsable", f"too large to compare: {type(e).__name__}", "", "")
    except Exception as e:  # noqa: BLE001 - no judgement, said aloud
        return ("error", f"{type(e).__name__}: {e}"[:200], "", "")


def _resident() -> int:
    """Bytes; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


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

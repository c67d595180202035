"""`magistral grade`: is an answer right? One pair, or a file of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from magistral.errors import RunFailed, UserError
from magistral.flow import encodable
from magistral.registry import nearest


def command(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="JSONL, a pair a line; - is standard input. See docs/grading.md.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="math, choice or code; code with --source or --tests.")] = None,
    reference: Annotated[list[str] | None, typer.Option("--reference", help="What is right; may be given again.")] = None,
    answer: Annotated[str | None, typer.Option("--answer", help="The bare answer, without box.")] = None,
    completion: Annotated[Path | None, typer.Option("--completion", help="A file with a whole completion.")] = None,
    source: Annotated[Path | None, typer.Option("--source", help="A file with the program (code).")] = None,
    language: Annotated[str | None, typer.Option("--language", help="python or cpp (code with --source).")] = None,
    tests: Annotated[Path | None, typer.Option("--tests", help="A JSON file: a list of tests (code).")] = None,
    question: Annotated[
        str | None, typer.Option("--question", help="Lets an answer carry the units that the question names.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say how each side was read, and what judged.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Pairs judged at once.")] = 1,
    deadline: Annotated[float, typer.Option("--deadline", min=0.01, help="Seconds that one math comparison may take.")] = 5.0,
    require_isolation: Annotated[
        bool, typer.Option("--require-isolation", help="Refuse to run code where the host cannot hold it fully.")
    ] = False,
) -> None:
    """Judge one pair, or every line of a JSONL file, and print a line of JSON for each, in order.

    Leaves with 0 if every line was judged, 1 if the verdict of any is "error", 2 if something cannot be done as asked."""
    from magistral.verifiers.grade import grade
    from magistral.verifiers.judges import Judges

    one = {
        "kind": kind, "reference": reference, "answer": answer, "completion": completion, "question": question,
        "source": source, "language": language, "tests": tests,
    }  # fmt: skip
    one = {name: value for name, value in one.items() if value is not None}
    if file is not None and one:
        raise UserError(f"FILE and --{next(iter(one))}: judge a file of pairs, or the one pair of the options")
    lines = [_pair(one)] if file is None else _lines(file)
    n_errors = 0
    with Judges(n_workers=workers, deadline_s=deadline, require_isolation=require_isolation) as judges:
        try:
            for told in grade(lines, judges, n_workers=workers, explain=explain):
                n_errors += told["verdict"] == "error"
                if file is None:
                    del told["line"]
                _print(told, spelt=explain and file is None)
        except KeyboardInterrupt:
            judges.close()
            os._exit(130)  # an ordinary end would wait for threads that try again what was closed under them
    if n_errors and file:
        lines_, their = ("line", "its reason is") if n_errors == 1 else ("lines", "their reasons are")
        raise RunFailed(f"{n_errors} {lines_} could not be judged: {their} where the verdict is error")
    if n_errors:
        raise RunFailed("the pair could not be judged")


def _pair(one: dict[str, Any]) -> str:
    """As a line. Raises UserError, naming the option, where there is no pair or two."""
    from pydantic import ValidationError

    from magistral.verifiers.grade import KINDS, Pair, fault_of

    given = [name for name in ("answer", "completion", "source") if name in one]
    if not given:
        raise UserError("nothing to judge: give a FILE, or --reference with --answer or --completion, or --tests with --source")
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]}: one of both is what is judged")
    one.setdefault("kind", "code" if "source" in one or "tests" in one else "math")
    if one["kind"] not in KINDS:
        raise UserError(f"--kind: no kind named {one['kind']!r}; {nearest(one['kind'], KINDS)}")
    pair = one | {name: _text(one[name]) for name in ("completion", "source") if name in one}
    if "tests" in one:
        pair["tests"] = _json(one["tests"])
    try:
        Pair.model_validate(pair)
    except ValidationError as e:
        raise UserError(f"the options make no pair: {fault_of(e)}") from None
    return json.dumps(pair)


def _print(told: dict[str, Any], *, spelt: bool) -> None:
    """Flushed at once, so that a kill loses nothing that was judged."""
    text = _spelt(told) if spelt else json.dumps(told, ensure_ascii=False)
    typer.echo(encodable(text))


def _lines(file: Path) -> Iterable[bytes]:
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as e:
        raise UserError(f"{file} cannot be read: {e.strerror}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is no UTF-8: {e}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} is no JSON: {e}") from None


def _spelt(told: dict[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' '):15} {value}" for name, value in told.items() if value not in (None, ""))

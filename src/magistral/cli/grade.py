"""`magistral grade`: is an answer right? One pair, or a file of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from magistral.errors import RunFailed, UserError


def command(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="JSONL, a pair a line; - is standard input. See docs/grading.md.")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="math, choice or code (of one pair on the command line).")] = "math",
    reference: Annotated[list[str] | None, typer.Option("--reference", help="What is right; may be given again.")] = None,
    answer: Annotated[str | None, typer.Option("--answer", help="The bare answer, without box.")] = None,
    completion: Annotated[Path | None, typer.Option("--completion", help="A file with a whole completion.")] = None,
    source: Annotated[Path | None, typer.Option("--source", help="A file with the program (code).")] = None,
    language: Annotated[str | None, typer.Option("--language", help="python or cpp (code with --source).")] = None,
    tests: Annotated[Path | None, typer.Option("--tests", help="A JSON file: a list of tests (code).")] = None,
    question: Annotated[str, typer.Option("--question", help="Lets an answer carry the units that the question names.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Say how each side was read, and what judged.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Pairs judged at once.")] = 1,
    deadline: Annotated[float, typer.Option("--deadline", min=0.01, help="Seconds that one math comparison may take.")] = 5.0,
    require_isolation: Annotated[
        bool, typer.Option("--require-isolation", help="Refuse to run code where the host cannot hold it fully.")
    ] = False,
) -> None:
    """Judge one pair, or every line of a JSONL file, and print a line of JSON for each, in order.

    Leaves with 0 if every line was judged, 1 if the verdict of any is "error", 2 if something cannot be done as asked."""
    from magistral.registry import nearest
    from magistral.verifiers import VERIFIERS
    from magistral.verifiers.grade import grade
    from magistral.verifiers.judges import Judges

    if file is None and answer is None and completion is None and source is None:
        raise UserError("nothing to judge: give a FILE, or --reference with --answer or --completion, or --tests with --source")
    if kind not in VERIFIERS:
        raise UserError(f"--kind {kind}: {nearest(kind, VERIFIERS)}")
    one = {
        "kind": kind, "reference": reference or "", "answer": answer, "completion": _text(completion), "question": question,
        "source": _text(source), "language": language, "tests": _json(tests),
    }  # fmt: skip
    lines = _lines(file) if file else [json.dumps({k: v for k, v in one.items() if v is not None})]
    n_errors = 0
    with Judges(n_workers=workers, deadline_s=deadline, require_isolation=require_isolation) as judges:
        for told in grade(lines, judges, n_workers=workers, explain=explain):
            n_errors += told["verdict"] == "error"
            text = _spelt(told) if explain and not file else json.dumps(told, ensure_ascii=False)
            typer.echo(text.encode(errors="backslashreplace").decode())  # half a surrogate pair cannot be printed
    if n_errors and file:
        lines_, their = ("line", "its reason is") if n_errors == 1 else ("lines", "their reasons are")
        raise RunFailed(f"{n_errors} {lines_} could not be judged: {their} where the verdict is error")
    if n_errors:
        raise RunFailed("the pair could not be judged")


def _lines(file: Path) -> Any:
    if str(file) == "-":
        return sys.stdin
    try:
        return file.open(encoding="utf-8", errors="replace")
    except OSError as e:
        raise UserError(f"{file} cannot be read: {e.strerror}") from None


def _text(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text(encoding="utf-8", errors="replace")
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None


def _json(path: Path | None) -> Any:
    text = _text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError as e:
        raise UserError(f"{path} is no JSON: {e}") from None


def _spelt(told: dict[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' '):15} {value}" for name, value in told.items() if value not in (None, ""))

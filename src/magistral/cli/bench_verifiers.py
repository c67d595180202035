"""`magistral bench-verifiers`: how good and how quick is the judging of math, beside that of others?"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magistral.cli.wiring import progress
from magistral.errors import RunFailed, UnknownName, UserError
from magistral.registry import nearest

if TYPE_CHECKING:
    from magistral.verifiers.bench import Measured, Row

COLUMNS = ("n", "false_negatives", "false_positives", "failed", "timed_out", "hung", "p50_ms", "p99_ms", "max_ms", "pairs_per_s")
HEADS = ("pairs", "FN", "FP", "failed", "timed out", "hung", "p50 ms", "p99 ms", "max ms", "pairs/s")


def command(
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder with math500, aime24, …: their references, rewritten.")
    ] = None,
    grader: Annotated[list[str] | None, typer.Option("--grader", help="Only this one; may be given again.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only pairs of this kind; may be given again.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print every pair that a grader got wrong, with the reason.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write all numbers there, as JSON.")] = None,
) -> None:
    """Measure our verifier of math, and each peer that is installed, on pairs whose verdict is known.

    Leaves with 1 if ours accepts a wrong answer or hangs."""
    from magistral.verifiers.bench import PEERS, installed, measure

    for name in grader or []:
        if name not in PEERS:
            raise UnknownName(f"no grader named {name!r}; {nearest(name, PEERS)}")
        if name not in installed():
            raise UserError(f"{name} is not installed here: pip install {name} first, or leave --grader out")
    graders = grader or installed()
    rows = _rows(data, kind)
    with progress("bench-verifiers", len(rows)) as advance:
        measured = measure(graders, rows, partial(advance, 1))
    result = {name: {kind: m.summary() for kind, m in by_kind.items()} for name, by_kind in measured.items()}
    for name, by_kind in measured.items() if show else ():
        for m in by_kind.values():
            _show(name, m)
    _print(result)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    ours = result.get("magistral", {}).values()
    if any(s["false_positives"] or s["hung"] for s in ours):
        raise RunFailed("our verifier accepted a wrong answer or hung: see --show")


def _rows(data: Path | None, kinds: list[str] | None) -> list[Row]:
    """Raises UserError where `data` holds nothing that we know, or no pair is of a kind."""
    from magistral.verifiers.bench import reference_pairs, written_pairs

    of_data = reference_pairs(data) if data else []
    if data and not of_data:
        raise UserError(f"--data: {data} holds no references: name a folder with math500/test.jsonl or the like in it")
    rows = written_pairs() + of_data
    known = {row.kind for row in rows}
    for kind in kinds or []:
        if kind not in known:
            raise UnknownName(f"--kind: no pairs of kind {kind!r}; {nearest(kind, known)}")
    return [row for row in rows if not kinds or row.kind in kinds]


def _show(name: str, measured: Measured) -> None:
    for what, wrong in (("refused", measured.false_negatives), ("accepted", measured.false_positives)):
        for row in wrong:
            typer.echo(f"{name} {what} {row.answer!r} for {row.reference!r}: {row.reason}")


def _print(result: dict[str, Any]) -> None:
    typer.echo("  ".join(f"{head:>9}" for head in HEADS) + "  kind, grader")
    for kind in next(iter(result.values()), {}):
        for name, by_kind in result.items():
            typer.echo("  ".join(f"{by_kind[kind][c]:>9}" for c in COLUMNS) + f"  {kind}, {name}")

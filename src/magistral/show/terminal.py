"""A run, or a folder of runs, in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from magistral.show.read import PARTS, Kept, Run, before_and_after, mean_parts
from magistral.show.visible import visible
from magistral.show.words import duration, maj_name, number, percent, row_name

_CURVES = {
    "sft": ("loss", "held_out_loss", "solved"),
    "rl": ("reward/mean", "right", "well_formed", "tokens_mean", "entropy", "loss"),
}
_BARS = "▁▂▃▄▅▆▇█"
_MAX_LINES = 24  # of one block of a completion; the report has them whole
_MAX_CHARACTERS = 4000
_STYLES = {"done": "green", "running": "cyan", "stopped": "yellow", "failed": "red", "killed": "red"}


def show_runs(runs: Sequence[Run], console: Console) -> None:
    """One run as its summary, several as a table of the evaluations with two completions before and after."""
    if len(runs) == 1:
        _show_one(runs[0], console)
    else:
        _show_many(runs, console)


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """Finite values as bars from the least to the greatest; more than `width` of them are averaged in pieces.

    Example: sparkline([0, 1, 2]) == "▁▅█"."""
    n = min(len(values), width)
    means = []
    for i in range(n):
        piece = values[i * len(values) // n : (i + 1) * len(values) // n]
        means.append(sum(piece) / len(piece))
    low, span = min(means, default=0.0), max(means, default=0.0) - min(means, default=0.0)
    top = len(_BARS) - 1
    return "".join(_BARS[int((m - low) / span * top + 0.5) if 0 < span < math.inf else top // 2] for m in means)


def headline(run: Run) -> Text:
    text = Text.assemble(
        (visible(run.name), "bold"), "  ", visible(run.stage), "  ", (visible(run.state), _STYLES.get(run.state, ""))
    )
    text.append(f"  {visible(str(run.info.get('model', '')))}  {duration(run.seconds)}", style="dim")
    if run.state == "failed" and "error" in run.info:
        text.append(f"\n{visible(str(run.info['error']))}", style="red")
    if run.state == "killed":
        text.append("\nno process holds this run any more: the same command with --resume goes on with it", style="dim")
    return text


def _show_one(run: Run, console: Console) -> None:
    console.print(headline(run))
    if not run.metrics and not run.scores and not run.kept:
        console.print(Text("nothing measured yet", style="dim"))
        return
    if run.metrics:
        console.print(_curves(run))
    for step, note in run.notes:
        console.print(Text(f"after step {step}: {visible(note)}", style="dim"))
    if run.scores:
        console.print(_scores([run]))
    last = [k for k in run.kept if k.step == run.kept[-1].step]
    if last:
        console.print(Text(f"\nreward by part, mean of {len(last)} completions of step {last[0].step}", style="dim"))
        console.print(_parts(mean_parts(last)))
    for kept in two_of(last):
        console.print()
        _print_completion(kept, console)


def two_of(last: Sequence[Kept]) -> list[Kept]:
    """The first that is right and the first that is not; of one kind only: the first two."""
    right = [k for k in last if k.outcome == "right"]
    other = [k for k in last if k.outcome != "right"]
    return [right[0], other[0]] if right and other else list(last[:2])


def _curves(run: Run) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", f"steps {run.metrics[0][0]} to {run.metrics[-1][0]}"):
        table.add_column(name, no_wrap=True)
    for name in ("first", "last"):
        table.add_column(name, justify="right")
    for name in _CURVES.get(run.stage, ()):
        values = [v for _, v in run.series(name)]
        if values:
            table.add_row(name, Text(sparkline(values), style="cyan"), number(values[0]), number(values[-1]))
        elif any(name in v for _, v in run.metrics):
            table.add_row(name, Text("not a finite number", style="red"))
    return table


def _parts(means: dict[str, float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for part in (*PARTS, "total"):
        table.add_column(part, justify="right")
    table.add_row(*(f"{means[part]:.3f}" for part in (*PARTS, "total")))
    return table


def _show_many(runs: Sequence[Run], console: Console) -> None:
    for run in runs:
        console.print(headline(run))
    evals = [run for run in runs if run.scores]
    if evals:
        console.print()
        console.print(Text("held-out problems, never trained on; 95 % intervals", style="dim"))
        console.print(_scores(evals))
    for before, after in before_and_after(runs):
        console.print()
        question, reference = _shortened(after.question), _shortened(after.reference)
        console.print(Text.assemble(("held-out problem  ", "dim"), (question, "bold"), (f"  ({reference})", "dim")))
        for name, kept in (("before", before), ("after", after)):
            _print_completion(kept, console, heading=name)


def _scores(evals: Sequence[Run]) -> Table:
    maj = maj_name(evals)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("pass@1", maj.replace("maj_at_", "maj@") if maj else "maj@k", "reward", "well formed", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in evals:
        s = run.scores
        mean = [number(s[name].value) if name in s else "-" for name in ("reward", "tokens")]
        table.add_row(
            visible(row_name(run)), percent(s.get("pass_at_1")), percent(s.get(maj or "")), mean[0],
            percent(s.get("well_formed"), interval=False), mean[1],
        )  # fmt: skip
    return table


def _print_completion(kept: Kept, console: Console, heading: str = "") -> None:
    style = "green" if kept.outcome == "right" else "yellow"
    verdict = Text.assemble((heading + "  " if heading else "", "bold"), (visible(kept.outcome), style))
    verdict.append(f"  reward {kept.total:.2f}  {kept.n_tokens} tokens  {_shortened(kept.reason)}", style="dim")
    if not heading:
        console.print(Text(_shortened(kept.question), style="bold"))
    console.print(verdict)
    if kept.thinking or kept.summary:
        blocks = [Text(_shortened(kept.thinking), style="dim italic"), Text(_shortened(kept.summary))]
    else:
        blocks = [Text(_shortened(kept.text))]
    for block in blocks:
        if block.plain.strip():
            console.print(Padding(block, (0, 0, 0, 2)))


def _shortened(text: str) -> str:
    lines = visible(text[:_MAX_CHARACTERS]).strip().split("\n")
    cut = len(lines) > _MAX_LINES or len(text) > _MAX_CHARACTERS
    return "\n".join(lines[:_MAX_LINES]) + ("\n… (cut short here)" if cut else "")

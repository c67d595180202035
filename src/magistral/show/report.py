"""One self-contained HTML file of a run, or of a folder of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from magistral.show.chart import Curve, Mark, chart
from magistral.show.page import render_page, write_page
from magistral.show.read import PARTS, Kept, Run, before_and_after, mean_parts
from magistral.show.words import maj_name, row_name

MAX_COMPLETIONS = 400  # chosen: about a megabyte of page, which any browser filters at once

_CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "sft": {"loss": ("loss", "held_out_loss"), "problems solved": ("solved",), "learning rate": ("lr",)},
    "rl": {
        "reward": ("reward/mean",),
        "reward by part": ("reward/format", "reward/correctness", "reward/length", "reward/language"),
        "share of completions": ("right", "well_formed"),
        "tokens": ("tokens_mean",),
        "entropy": ("entropy",),
        "loss": ("loss",),
        "gradient norm": ("grad_norm",),
        "share of tokens clipped": ("clip_share",),
        "groups dropped": ("groups_dropped",),
        "completions that no verifier could judge": ("verifier_failed",),
        "staleness in versions": ("staleness", "staleness_max"),
        "tokens learned from, for each computed": ("tokens_per_input",),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A completion of the browser, with the run it is from."""

    run: str
    kept: Kept


def write_report(runs: Sequence[Run], path: Path, *, title: str) -> None:
    """Raises RunFolderError where `path` cannot be written."""
    write_page(path, render(runs, title=title))


def render(runs: Sequence[Run], *, title: str) -> str:
    """The whole page."""
    shown, left_out = chosen([Shown(run=run.name, kept=k) for run in runs for k in run.kept])
    evals = [run for run in runs if run.scores]
    return render_page(
        "report.html.jinja",
        title=title,
        row_name=row_name,
        PARTS=PARTS,
        runs=runs,
        evals=evals,
        maj=maj_name(evals),
        pairs=before_and_after(runs),
        charts=[(run, charts) for run in runs if (charts := _charts(run))],
        last_parts=_last_parts(runs),
        shown=shown,
        left_out=left_out,
        choices=_choices(shown),
    )


def chosen(completions: Sequence[Shown]) -> tuple[list[Shown], int]:
    """At most MAX_COMPLETIONS, spread evenly over all, and how many are left out."""
    n = len(completions)
    if n <= MAX_COMPLETIONS:
        return list(completions), 0
    return [completions[i * n // MAX_COMPLETIONS] for i in range(MAX_COMPLETIONS)], n - MAX_COMPLETIONS


def _charts(run: Run) -> list[Markup]:
    drawn = []
    marks = [Mark(step=step, name=note.partition(":")[0], title=note) for step, note in run.notes]
    for label, names in _CHARTS.get(run.stage, {}).items():
        curves = [Curve(name=n.removeprefix("reward/"), points=points) for n in names if (points := run.series(n))]
        drawn.append(chart(curves, label=label, marks=marks))
    return [svg for svg in drawn if svg]


def _last_parts(runs: Sequence[Run]) -> list[tuple[Run, dict[str, float]]]:
    """Mean reward by part over the last step of each run that kept completions."""
    return [(run, mean_parts(k for k in run.kept if k.step == run.kept[-1].step)) for run in runs if run.kept]


def _choices(shown: Sequence[Shown]) -> dict[str, list[Any]]:
    """What each filter offers, with its own name."""
    return {
        "run": list(dict.fromkeys(s.run for s in shown)),
        "step": sorted({s.kept.step for s in shown}),
        "outcome": sorted({s.kept.outcome for s in shown}),
        "family": sorted({s.kept.family for s in shown}),
    }

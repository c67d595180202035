"""One self-contained HTML file of a run, or of a folder of runs: opens from disk, loads nothing.

What a model wrote is hostile. Three things hold it: the template escapes every value (jinja2's autoescape), control
characters are shown as pictures of themselves, and the page's Content-Security-Policy forbids every load and every script
and style but the page's own, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from magistral.errors import RunFolderError
from magistral.log import write_atomically
from magistral.show.chart import Curve, chart, whisker
from magistral.show.read import PARTS, Kept, Run, before_and_after, mean_parts
from magistral.show.visible import visible
from magistral.show.words import duration, maj_name, number, percent, row_name

MAX_COMPLETIONS = 400  # chosen: about a megabyte of page, which any browser filters at once
MAX_CHARACTERS = 20_000  # of one text

_POLICY = "default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"
_CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "sft": {"loss": ("loss", "held_out_loss"), "learning rate": ("lr",)},
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
    page = render(runs, title=title)
    try:
        write_atomically(path, page)
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as e:
        raise RunFolderError(f"{path} cannot be written ({e.strerror}): name another place with --report") from None


def render(runs: Sequence[Run], *, title: str) -> str:
    """The whole page."""
    style, script = _asset("report.css"), _asset("report.js")
    shown, left_out = chosen([Shown(run=run.name, kept=k) for run in runs for k in run.kept])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalized)
    environment.globals.update(duration=duration, number=number, percent=percent, row_name=row_name, whisker=whisker, PARTS=PARTS)
    environment.filters["cut"] = cut
    evals = [run for run in runs if run.scores]
    return environment.from_string(_asset("report.html.jinja")).render(
        title=title,
        policy=_POLICY.format(style=_sha256(style), script=_sha256(script)),
        style=Markup(style),
        script=Markup(script),
        runs=runs,
        evals=evals,
        maj=maj_name(evals),
        pairs=before_and_after(runs),
        charts=[(run, charts) for run in runs if (charts := _charts(run))],
        last_parts=_last_parts(runs),
        shown=shown,
        left_out=left_out,
        choices=_choices(shown),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def chosen(completions: Sequence[Shown]) -> tuple[list[Shown], int]:
    """At most MAX_COMPLETIONS, spread evenly over all, and how many are left out."""
    n = len(completions)
    if n <= MAX_COMPLETIONS:
        return list(completions), 0
    return [completions[i * n // MAX_COMPLETIONS] for i in range(MAX_COMPLETIONS)], n - MAX_COMPLETIONS


def cut(text: str) -> str:
    """A text of tens of thousands of characters would make the page unusable: its start, and how much is missing."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}\n… ({len(text) - MAX_CHARACTERS} more characters)"


def _finalized(value: Any) -> Any:
    """Every value that the template prints goes through here: nothing shows a control character."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _charts(run: Run) -> list[Markup]:
    drawn = []
    for label, names in _CHARTS.get(run.stage, {}).items():
        curves = [Curve(name=n.removeprefix("reward/"), points=points) for n in names if (points := run.series(n))]
        drawn.append(chart(curves, label=label))
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


def _asset(name: str) -> str:
    return (resources.files("magistral.show") / name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

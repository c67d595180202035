"""The report of a folder of measurements: our numbers beside published ones, each marked as what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from magistral.errors import RunFolderError
from magistral.show.chart import Curve, chart
from magistral.show.page import render_page, write_page
from magistral.show.read import Score, as_scores
from magistral.show.visible import visible
from magistral.show.words import percent

LANGUAGES_SHOWN_FROM = 2
"""A table by language needs that many."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One benchmark's eval.json."""

    folder: str
    data: Mapping[str, Any]

    @property
    def scores(self) -> dict[str, Score]:
        return as_scores(self.data["scores"])

    @property
    def languages(self) -> dict[str, dict[str, Score]]:
        return {name: as_scores(scores) for name, scores in self.data["by_language"].items()}

    @property
    def by_language_published(self) -> dict[str, float]:
        return {row["language"]: row["value"] for row in self.data["published"] if row["language"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One row of the table: a score of a model on a benchmark."""

    benchmark: str
    model: str
    score: str
    shown: str
    measured: bool
    source: str
    """Of a published number where it stands; of a measured one how it departs from the protocol."""


def read_measurements(out: Path) -> list[Measured]:
    """Of the folders in `out`. Raises RunFolderError where a file cannot be read."""
    found = []
    for file in sorted(out.glob("*/eval.json")):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise RunFolderError(f"{file} cannot be read: {e}") from None
        if "benchmark" in data:
            found.append(Measured(file.parent.name, data))
    return found


def numbers(measured: Sequence[Measured]) -> list[Number]:
    """By benchmark and score; of each ours first, then what is published, best first."""
    return [number for m in measured for number in _numbers(m)]


def _numbers(m: Measured) -> list[Number]:
    d = m.data
    known = [row for row in d["published"] if not row["language"]]
    whose = "the paper's" if d["comparable"] else "our"
    how = "; ".join(d["departures"]) or f"{whose} protocol, runs of each problem: {d['n_runs']}"
    rows = [
        (Number(benchmark=d["benchmark"], model=d["model"], score=name, shown=percent(score), measured=True, source=how), 0.0)
        for name, score in (m.scores | _also(m, {row["score"] for row in known})).items()
        if name.startswith(("pass_at_", "maj_at_"))
    ] + [
        (Number(
            benchmark=d["benchmark"], model=row["model"], score=row["score"], shown=f"{row['value']:.1f} %", measured=False,
            source=row["source"],
        ), row["value"])
        for row in known
    ]  # fmt: skip
    rows.sort(key=lambda row: (row[0].score != "pass_at_1", score_order(row[0].score), not row[0].measured, -row[1]))
    return [number for number, _ in rows]


def _also(m: Measured, wanted: set[str]) -> dict[str, Score]:
    """Our maj@k at the k of published numbers, which may be below our number of runs: an unbiased estimate, no interval."""
    votes = m.data["at_every_k"].get("maj_at", ())
    by_name = {f"maj_at_{k}": value for k, value in enumerate(votes, 1)}
    return as_scores({name: by_name[name] for name in wanted & by_name.keys() - m.scores.keys()})


def score_order(name: str) -> tuple[str, int]:
    kind, _, k = name.partition("_at_")
    return kind, int(k)


def table(measured: Sequence[Measured]) -> str:
    """Markdown. A model's name is a person's own text: nothing in it may break out of its cell."""
    lines = ["| benchmark | model | score | value (95 %) | | source or protocol |", "|---|---|---|---|---|---|"]
    for n in numbers(measured):
        kind = "measured" if n.measured else "published"
        cells = (n.benchmark, n.model, score_name(n.score), n.shown, kind, n.source)
        lines.append("| " + " | ".join(visible(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
    return "\n".join(lines)


def score_name(name: str) -> str:
    """Example: score_name("maj_at_64") == "maj@64"."""
    return name.replace("_at_", "@")


def write_report(measured: Sequence[Measured], out: Path, *, title: str) -> None:
    """report.html and report.md in `out`."""
    write_page(out / "report.md", f"# {title}\n\n{table(measured)}\n")
    write_page(out / "report.html", render(measured, title=title))


def render(measured: Sequence[Measured], *, title: str) -> str:
    rows = numbers(measured)
    return render_page(
        "benchmarks.html.jinja",
        title=title,
        measured=measured,
        tables=[(m, [n for n in rows if n.benchmark == m.data["benchmark"]]) for m in measured],
        charts=[(m, _charts(m)) for m in measured],
        by_language=[m for m in measured if len(m.languages) >= LANGUAGES_SHOWN_FROM],
        score_name=score_name,
        signed=signed,
    )


def signed(score: Mapping[str, Any]) -> str:
    """A difference of shares in points, with its interval. Example: "+3.1 (+0.4 to +5.8)"."""
    value, low, high = (math.nan if score[k] is None else 100 * float(score[k]) for k in ("value", "low", "high"))
    shown = f"{value:+.1f}"
    return f"{shown} ({low:+.1f} to {high:+.1f})" if math.isfinite(low) and math.isfinite(high) else shown


def _charts(m: Measured) -> list[Markup]:
    """Accuracy against thinking length, and against k; each where there is more than one point."""
    lengths = [(int(b["median"]), float(b["right"])) for b in m.data["by_length"]]
    by_k = [
        Curve(name=name.replace("_at", "@k"), points=list(enumerate(values, 1))) for name, values in m.data["at_every_k"].items()
    ]
    drawn = []
    if len({x for x, _ in lengths}) > 1:
        drawn.append(chart([Curve(name="right", points=lengths)], label="share right", along="tokens of thinking"))
    if len(by_k[0].points) > 1:
        drawn.append(chart(by_k, label="share right", along="k"))
    return drawn

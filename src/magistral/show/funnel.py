"""What a curation kept and dropped, as one self-contained HTML file: every count from the first total down, and examples."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magistral.show.page import render_page, write_page

N_EXAMPLES = 5
"""Of each reason (chosen: enough to see whether a rule is right)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stage's counts, and some of what it dropped."""

    counts: dict[str, Any]
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.counts["name"]).replace("-", " ")


def write_funnel(folder: Path, *, title: str) -> None:
    """`folder`/report.html of a folder that `magistral curate` filled."""
    steps = [_step(file.parent) for file in sorted((folder / "stages").glob("*/counts.json"))]
    page = render_page(
        "funnel.html.jinja",
        title=title,
        anchor=lambda *words: "/".join(words).replace(" ", "-"),
        steps=steps,
        total=steps[0].counts["in"] if steps else 0,
        pools=json.loads((folder / "pools.json").read_text(encoding="utf-8")),
        reviews=[row for file in sorted((folder / "answers").glob("*-review.jsonl")) for row in _likeliest(file)],
    )
    write_page(folder / "report.html", page)


def _step(folder: Path) -> Step:
    step = Step(json.loads((folder / "counts.json").read_text(encoding="utf-8")))
    with (folder / "dropped.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            examples = step.examples.setdefault(row["reason"], [])
            if len(examples) < N_EXAMPLES:
                examples.append(row)
    return step


def _likeliest(file: Path) -> list[dict[str, Any]]:
    """The rows of a review file whose references are likeliest to be wrong."""
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return sorted(rows, key=lambda row: -row["probability"])[: 4 * N_EXAMPLES]

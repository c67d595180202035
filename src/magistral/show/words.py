"""Numbers and names as a person reads them, the same in the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from magistral.show.read import Run, Score


def duration(seconds: float | None) -> str:
    """Example: duration(3725.2) == "1 h 02 min"; "-" if not known."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def number(value: float, digits: int = 3) -> str:
    """Example: number(0.41666) == "0.417", number(1234.5) == "1234", number(math.nan) == "-"."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def percent(score: Score | None, *, interval: bool = True) -> str:
    """Example: "42.0 % (36.0-48.0)"."""
    if score is None or not math.isfinite(score.value):
        return "-"
    shown = f"{score.value:.1%}".replace("%", " %")
    if not interval or not (math.isfinite(score.low) and math.isfinite(score.high)):
        return shown
    return f"{shown} ({100 * score.low:.1f}-{100 * score.high:.1f})"


def maj_name(runs: Sequence[Run]) -> str | None:
    """The score of the vote in these evaluations, as 'maj_at_8'."""
    return next((name for run in runs for name in run.scores if name.startswith("maj_at_")), None)


def row_name(run: Run) -> str:
    """What an evaluation is called in a table: 'base' for the folder eval-base, 'after RL' for eval-rl."""
    rest = run.name.removeprefix("eval-")
    return {"sft": "after SFT", "rl": "after RL"}.get(rest, rest)

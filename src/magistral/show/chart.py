"""A curve as inline SVG. Looks come from the page's style sheet by class, so that it follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from magistral.show.words import number

_WIDTH, _HEIGHT = 460, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 14, 12, 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a chart: (step, value) points, all finite."""

    name: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An upright line: something that happened after a step. Its name stands beside it, all of it in its title."""

    step: int
    name: str
    title: str


def chart(curves: Sequence[Curve], *, label: str, along: str = "step", marks: Sequence[Mark] = ()) -> Markup:
    """Axes with ticks, a line a curve, and at each point a title that names step and value. Empty if there is no point.

    `along`: what is counted from left to right."""
    points = [p for curve in curves for p in curve.points]
    if not points:
        return Markup("")
    steps, values = [p[0] for p in points], [p[1] for p in points]
    y_ticks = ticks(min(values), max(values))
    x = _Scale(min(steps), max(steps), _LEFT, _WIDTH - _RIGHT)
    y = _Scale(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    body = [_grid(y, y_ticks), _steps(x, min(steps), max(steps)), _labels(label, along)]
    body += [_mark(mark, x(mark.step)) for mark in marks if min(steps) <= mark.step <= max(steps)]
    body += [_line(curve, i, x, y, along) for i, curve in enumerate(curves) if curve.points]
    legend = _legend([c.name for c in curves]) if len(curves) > 1 else Markup("")
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup("").join([*body, legend])
    )


def ticks(low: float, high: float, n: int = 4) -> list[float]:
    """About `n` round numbers, evenly spaced, that hold `low` and `high` between them.

    Example: ticks(0.03, 0.92) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]."""
    if high - low < 1e-300:  # no difference, or one so small that its parts are none
        margin = abs(low) / 2 if abs(low) > 1e-300 else 1.0
        low, high = low - margin, high + margin
    rough = high / n - low / n  # the difference itself may be over the largest number
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    return [round(i * width, 12) for i in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def _grid(y: _Scale, y_ticks: Sequence[float]) -> Markup:
    line = Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
    )
    return Markup("").join(line.format(_LEFT, _WIDTH - _RIGHT, y(t), y(t), _LEFT - 7, y(t) + 4, number(t, 4)) for t in y_ticks)


def _steps(x: _Scale, low: int, high: int) -> Markup:
    whole = sorted({round(t) for t in ticks(low, high) if low <= round(t) <= high} | {low})
    line = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
    return Markup("").join(line.format(x(t), _HEIGHT - _BOTTOM + 17, t) for t in whole)


def _labels(label: str, along: str) -> Markup:
    return Markup(
        '<text class="axis" x="{}" y="{}" text-anchor="end">{}</text><text class="axis turned" x="{}" y="14" '
        'text-anchor="middle" transform="rotate(-90)">{}</text>'
    ).format(_WIDTH - _RIGHT, _HEIGHT - 6, along, -(_HEIGHT - _BOTTOM + _TOP) / 2, label)


def _mark(mark: Mark, x: float) -> Markup:
    return Markup(
        '<g class="mark"><title>after step {}: {}</title><line x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text transform="rotate(-90)" x="{}" y="{}" text-anchor="end">{}</text></g>'
    ).format(mark.step, mark.title, x, x, _TOP, _HEIGHT - _BOTTOM, -_TOP - 2, x - 4, mark.name)


def _line(curve: Curve, index: int, x: _Scale, y: _Scale, along: str) -> Markup:
    path = " ".join(f"{x(step)},{y(value)}" for step, value in curve.points)
    dot = Markup('<circle cx="{}" cy="{}" r="{}"><title>{}, {} {}: {}</title></circle>')
    radius = 2.5 if len(curve.points) <= 80 else 1.5
    dots = Markup("").join(dot.format(x(s), y(v), radius, curve.name, along, s, number(v, 4)) for s, v in curve.points)
    return Markup('<g class="curve c{}"><polyline points="{}"/>{}</g>').format(index, path, dots)


def _legend(names: Sequence[str]) -> Markup:
    entry = Markup('<g class="curve c{}"><circle cx="{}" cy="{}" r="4"/></g><text class="tick" x="{}" y="{}">{}</text>')
    return Markup("").join(
        entry.format(i, _LEFT + 8 + 88 * i, _HEIGHT - 9, _LEFT + 17 + 88 * i, _HEIGHT - 5, name) for i, name in enumerate(names)
    )


def whisker(value: float, low: float, high: float) -> Markup:
    """A share between 0 and 1 with its interval, on a line from 0 to 100 %."""
    if not all(map(math.isfinite, (value, low, high))):
        return Markup("")
    x = _Scale(0, 1, 4, 156)
    return Markup(
        '<svg class="whisker" viewBox="0 0 160 16" role="img" aria-label="{}"><title>{}</title>'
        '<line class="grid" x1="4" x2="156" y1="8" y2="8"/><line class="range" x1="{}" x2="{}" y1="8" y2="8"/>'
        '<circle cx="{}" cy="8" r="4"/></svg>'
    ).format(escape(f"{value:.1%}"), f"{value:.1%}, 95 % interval {low:.1%} to {high:.1%}", x(low), x(high), x(value))

"""Numbers as a person reads them."""

from __future__ import annotations

import math

import pytest

from magistral.show.chart import Curve, chart, ticks, whisker
from magistral.show.read import Score
from magistral.show.terminal import sparkline
from magistral.show.words import duration, number, percent


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (math.nan, "-"), (0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3725.2, "1 h 02 min")],
    ids=["unknown", "not a number", "under a second", "rounds up to a minute", "a minute", "over an hour"],
)
def test_a_duration(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.41666, "0.417"), (0, "0"), (1234.4, "1234"), (-1e-5, "-1e-05"), (math.nan, "-"), (math.inf, "-")],
    ids=["a share", "zero", "thousands", "tiny", "not a number", "infinite"],
)
def test_a_number(value: float, expected: str) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("score", "interval", "expected"),
    [
        (Score(value=0.42, low=0.36, high=0.48), True, "42.0 % (36.0-48.0)"),
        (Score(value=0.42, low=0.36, high=0.48), False, "42.0 %"),
        (Score(value=1, low=math.nan, high=math.nan), True, "100.0 %"),
        (Score(value=math.nan, low=0, high=1), True, "-"),
        (None, True, "-"),
    ],
    ids=["with interval", "asked without", "has none", "no value", "no score"],
)
def test_a_share(score: Score | None, interval: bool, expected: str) -> None:
    assert percent(score, interval=interval) == expected


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [([], 8, ""), ([0, 1, 2], 8, "▁▅█"), ([4, 4], 8, "▄▄"), ([0, 0, 2, 2], 2, "▁█"), ([5], 8, "▄")],
    ids=["nothing", "from least to greatest", "flat", "averaged in pieces", "one value"],
)
def test_a_sparkline(values: list[float], width: int, expected: str) -> None:
    assert sparkline(values, width) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.03, 0.92, [0.0, 0.5, 1.0]),
        (1, 30, [0, 10, 20, 30]),
        (-0.01, 0.005, [-0.01, -0.005, 0.0, 0.005]),
        (2, 2, [1, 1.5, 2, 2.5, 3]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
    ],
    ids=["a share", "steps", "below zero", "one value", "only zeros"],
)
def test_ticks_are_round_and_hold_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_chart_names_each_point_and_escapes_its_names() -> None:
    svg = chart([Curve(name="<b>", points=[(1, 0.5), (2, 1.0)])], label="a & b")
    assert "<title>&lt;b&gt;, step 2: 1</title>" in svg
    assert "a &amp; b" in svg
    assert "<b>" not in svg


def test_a_chart_of_nothing_is_nothing() -> None:
    assert chart([Curve(name="loss", points=[])], label="loss") == ""
    assert whisker(0.5, math.nan, math.nan) == ""

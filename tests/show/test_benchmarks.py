from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from magistral.errors import RunFolderError
from magistral.show.benchmarks import read_measurements, render, signed, table, write_report

SCORE = {"value": 0.5, "low": 0.4, "high": 0.6}
SCORES = {name: SCORE for name in ("pass_at_1", "maj_at_4", "truncated", "malformed", "wrong_language", "tokens")}
TRACE = {"index": 0, "outcome": "wrong", "reason": "3 is not 2", "answer": "3", "n_tokens": 9, "finish": "stop"}
PASS = {"benchmark": "aime24", "score": "pass_at_1"}
AIME: dict[str, Any] = {
    "benchmark": "aime24", "model": "runs/a|b", "n_problems": 30, "n_runs": 4, "departures": ["n_runs 4 instead of 64"],
    "comparable": True, "dropped": 0, "scores": SCORES, "at_every_k": {"pass_at": [0.5, 0.6], "maj_at": [0.5, 0.55]},
    "by_language": {"en": SCORES, "fr": SCORES},
    "by_length": [{"median": 100, "right": 0.9}, {"median": 900, "right": 0.2}],
    "totals": {"tokens_out_per_right_answer": 1234.0, "cost_per_right_answer": 0.0021},
    "published": [
        {"model": "Magistral Small 1.0", "value": 70.7, "source": "table 3", "language": "", **PASS},
        {"model": "Base", "value": 20.0, "source": "table 2", "language": "", **PASS, "score": "maj_at_2"},
        {"model": "Medium", "value": 68.5, "source": "table 4", "language": "fr", **PASS},
    ],
    "compared": [{
        "with": "base", "flags": ["n_runs 4 against 8"], "n_problems": 30, "n_better": 9, "n_worse": 2,
        "difference": {"value": 0.031, "low": 0.004, "high": 0.058},
    }],
    "hardest": [
        {"problem_id": "p1", "right": 0.0, "family": "", "question": "What?", "reference": "2",
         "traces": [TRACE | {"thinking": "<script>alert(1)</script>\x1b[31m", "summary": "</pre>3"}]},
        {"problem_id": "secret", "right": 0.25, "family": "", "question": "", "reference": "", "traces": []},
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in (("aime24", AIME), ("held-out", {"scores": {}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "eval.json").write_text(json.dumps(data))
    return tmp_path


def test_the_table_marks_every_number_as_measured_or_published_with_its_source(folder: Path) -> None:
    assert table(read_measurements(folder)).splitlines()[2:] == [
        r"| aime24 | runs/a\|b | pass@1 | 50.0 % (40.0-60.0) | measured | n_runs 4 instead of 64 |",
        "| aime24 | Magistral Small 1.0 | pass@1 | 70.7 % | published | table 3 |",
        r"| aime24 | runs/a\|b | maj@2 | 55.0 % | measured | n_runs 4 instead of 64 |",
        "| aime24 | Base | maj@2 | 20.0 % | published | table 2 |",
        r"| aime24 | runs/a\|b | maj@4 | 50.0 % (40.0-60.0) | measured | n_runs 4 instead of 64 |",
    ]


def test_the_page_holds_all_parts_and_nothing_in_it_acts(folder: Path) -> None:
    write_report(read_measurements(folder), folder, title="mine")
    page = (folder / "report.html").read_text()
    assert (folder / "report.md").read_text().startswith("# mine\n\n| benchmark")
    for part in (
        "Not the protocol: n_runs 4 instead of 64", "+3.1 (+0.4 to +5.8) points", "Differs besides the model: n_runs 4 against 8",
        "aime24 by language", "68.5 %", "tokens of thinking", "pass@k", "1234", "0.0021",
        "ask that no problem of it be published",
    ):  # fmt: skip
        assert part in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert page.count("<script>") == 1
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_one_point_is_no_curve(folder: Path) -> None:
    (m,) = read_measurements(folder)
    flat = AIME | {"by_length": AIME["by_length"][:1], "at_every_k": {"pass_at": [0.5]}, "by_language": {"en": SCORES}}
    page = render([type(m)("aime24", flat)], title="mine")
    assert '<svg class="chart"' not in page
    assert "by language" not in page


def test_an_open_interval_is_left_out() -> None:
    assert signed({"value": -0.05, "low": None, "high": None}) == "-5.0"


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "aime24" / "eval.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"aime24/eval.json cannot be read"):
        read_measurements(folder)

"""The whole way from raw problems to pools, with engines whose ability is known."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from magistral.curation.candidate import read_candidates
from magistral.curation.curate import curate
from magistral.recipe_data import Asked, Curation, Difficulty
from magistral.show.funnel import write_funnel
from tests.curation.planted import Planted, planted_hands, precision_and_recall, story

N = 30


@dataclass(frozen=True)
class Run:
    planted: Planted
    one: Path
    two: Path
    """Folders: with the weak model alone, and with a strong grader after it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Solvable ones, too easy ones, wrong references, ones nobody solves, and hard ones that the weak model cannot solve."""
    planted, r = Planted(ability={"weak": {}, "strong": {}}), random.Random(5)
    for why, weak, strong in (
        ("", 0.4, 0.6), ("too easy", 1.0, 1.0), ("wrong reference", 0.8, 0.9), ("never solved", 0.0, 0.0), ("hard", 0.0, 0.4),
    ):  # fmt: skip
        for _ in range(N):
            question, answer = story(r)
            planted.answers[question] = answer
            planted.ability["weak"][question], planted.ability["strong"][question] = weak, strong
            planted.add(why, question, answer if why != "wrong reference" else str(int(answer) + 7))
    planted.add("incomplete", "What is left when nothing is given?", "")
    planted.add("proof", "Prove that <script>alert(1)</script> \x1b[31m holds.", "5")
    folder = tmp_path_factory.mktemp("curate")
    with planted_hands(planted) as hands:
        curate(settings(folder, planted, two_stages=False), folder / "one", hands)
        curate(settings(folder, planted, two_stages=True), folder / "two", hands)
    return Run(planted, folder / "one", folder / "two")


def settings(folder: Path, planted: Planted, *, two_stages: bool) -> Curation:
    file = folder / "raw.jsonl"
    file.write_text("".join(c.line for c in planted.shuffled()), encoding="utf-8")
    grader = Asked(model="strong", max_tokens=100) if two_stages else None
    return Curation(files=(str(file),), difficulty=Difficulty(first=Asked(model="weak", max_tokens=100), grader=grader))


def dropped_in(out: Path, stage: str) -> dict[str, str]:
    [folder] = (out / "stages").glob(f"*-{stage}")
    rows = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    return {row["candidate"]["id"]: row["reason"] for row in rows}


def test_two_stages_find_wrong_references_and_keep_hard_problems(run: Run) -> None:
    found = dropped_in(run.two, "second-pass")
    for reason in ("too easy", "wrong reference", "never solved"):
        precision, recall = precision_and_recall(run.planted, found, reason)
        assert precision >= 0.95, reason
        assert recall >= 0.95, reason
    hard = {name for name, why in run.planted.truth.items() if why == "hard"}
    kept = {folder: {c.id for c in read_candidates(folder / "problems.jsonl")} for folder in (run.one, run.two)}
    assert len(hard & kept[run.two]) >= 0.95 * N
    assert not hard & kept[run.one]


def test_pools_go_from_easy_to_hard(run: Run) -> None:
    counts = json.loads((run.two / "pools.json").read_text())
    assert list(counts) == ["problems", "pool-1", "pool-2", "pool-3"]
    rates = [[c.notes["grade"]["pass_rate"] for c in read_candidates(run.two / f"pool-{i}.jsonl")] for i in (1, 2, 3)]
    assert sum(map(len, rates)) == counts["problems"]
    assert min(rates[0]) >= 0.6 > max(rates[1])
    assert min(rates[1]) >= 0.3 > max(rates[2])


def test_the_report_shows_every_count_and_runs_nothing_of_the_data(run: Run) -> None:
    write_funnel(run.two, title="a set")
    page = (run.two / "report.html").read_text()
    assert f"From {5 * N + 2} problems to" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
    assert "\x1b" not in page
    for reason in ("proof", "incomplete", "too easy", "wrong reference", "never solved"):
        assert f">{reason}</a>" in page


def test_the_review_file_names_the_likeliest_answer(run: Run) -> None:
    rows = [json.loads(line) for line in (run.two / "answers" / "second-pass-review.jsonl").read_text().splitlines()]
    sure = [row for row in rows if row["probability"] > 0.9]
    assert len(sure) >= 0.95 * N
    assert all(row["answers_say"] == run.planted.answers[row["question"]] for row in sure)

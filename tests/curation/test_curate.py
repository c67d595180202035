"""The whole way from raw problems to pools, with engines whose ability is known."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from magistral.cli.hands import RecipeHands
from magistral.curation.candidate import read_candidates
from magistral.curation.curate import curate, stages_of
from magistral.engines.base import BudgetSpent
from magistral.recipe import load_recipe
from magistral.recipe_data import Asked, Curation, Difficulty, Programs, Translation
from magistral.show.funnel import write_funnel
from tests.curation.endpoint import Endpoint, serving
from tests.curation.planted import Planted, planted_hands, precision_and_recall, story

ROOT = Path(__file__).parents[2]
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


EACH = 50 / 1e6
"""What an answer costs, by the usage that the endpoint tells."""


@pytest.mark.parametrize(
    ("own", "in_all", "more_tokens"),
    [(31 * EACH, None, 0), (None, 31 * EACH, 0), (None, 31 * EACH, 1), (99 * EACH, 31 * EACH, 1)],
    ids=["of one model", "of the run", "of the run, on two models", "the lower of two"],
)
def test_a_budget_holds_for_all_stages_and_after_a_resume(
    own: float | None, in_all: float | None, more_tokens: int, tmp_path: Path
) -> None:
    """Each of two passes asks for 20 answers."""
    rows = [{"id": f"p{i}", "question": f"What is {i} + {i + 3}?", "reference": str(2 * i + 3)} for i in range(10)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load_recipe(ROOT / "recipes" / "nano.toml")
    with serving(Endpoint(lambda _, seed: ("So.", f"It is \\boxed{{{seed}}}."))) as endpoint:
        first = Asked(model=f"t={endpoint.url}", max_tokens=40, n_parallel=2, price_in=1.0, price_out=1.0, budget=own)
        grader = first.model_copy(update={"max_tokens": 40 + more_tokens})
        passes = Difficulty(first=first, grader=grader, n_completions=2)
        settings = Curation(files=(str(tmp_path / "raw.jsonl"),), difficulty=passes, budget=in_all)
        for _ in range(2):
            with RecipeHands(recipe, tmp_path / "out", 1) as hands, pytest.raises(BudgetSpent):
                curate(settings, tmp_path / "out", hands)
            assert 20 < sum(endpoint.answered.values()) <= 31


def test_whom_each_stage_asks_is_known_by_the_stage_s_name(tmp_path: Path) -> None:
    a, b, c = (Asked(model=name, max_tokens=10) for name in "abc")
    one, two = Difficulty(first=a), Difficulty(first=a, grader=b)
    settings = Curation(files=("raw.jsonl",), tests=Programs(writer=c), translation=Translation(translator=b), difficulty=one)
    assert settings.asked == {"tests-written": c, "difficulty": a, "translation": b, "translation-check": a}
    both = settings.model_copy(update={"difficulty": two})
    assert both.asked == {"tests-written": c, "first-pass": a, "second-pass": b, "translation": b, "translation-check": a}
    with planted_hands(Planted()) as hands:
        for each in (settings, both):
            assert set(each.asked) <= {stage.name for stage in stages_of(each, tmp_path, hands)}


def test_a_budget_of_a_run_needs_the_prices_of_all_endpoints() -> None:
    first = Asked(model="a=http://127.0.0.1/v1", max_tokens=10, price_out=1.0)
    grader = Asked(model="b=http://127.0.0.1/v1", max_tokens=10)
    with pytest.raises(ValueError, match=r"budget=1 needs price_in and price_out of b=http://127\.0\.0\.1/v1, whom second-pass"):
        Curation(difficulty=Difficulty(first=first, grader=grader), budget=1.0)
    Curation(difficulty=Difficulty(first=first, grader=grader.model_copy(update={"model": "runs/rl"})), budget=1.0)

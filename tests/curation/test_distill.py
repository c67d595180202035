"""A teacher's completions become traces, whatever the endpoint does."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral.cli.distill import command
from magistral.curation.distill import Distiller
from magistral.curation.sources.base import Origin
from magistral.curation.sources.files import Layout, origins_of, read_problems
from magistral.curation.traces import Sieve, Tally, balance
from magistral.engines.ask import Asker
from magistral.engines.base import BudgetSpent, Request
from magistral.engines.http import Budget, HttpEngine
from magistral.engines.http import Endpoint as Address
from magistral.engines.remote import Tries
from magistral.engines.scripted import ScriptedEngine
from magistral.errors import RecipeError
from magistral.flow import Problem
from magistral.recipe import Problems, RewardWeights
from magistral.recipe_data import Asked, Distill
from magistral.rewards.total import Scorer
from magistral.text.message import Message
from magistral.text.tokens import byte_tokenizer
from tests.curation.endpoint import STALL_S, Endpoint, serving
from tests.curation.planted import asker as scripted_asker

ROOT = Path(__file__).parents[2]
PROBLEMS = [Problem(id=f"sum-{i}", question=f"{i} + {i + 1} = ?", reference=str(2 * i + 1)) for i in range(12)]
SETTINGS = Distill(teacher=Asked(model="t", max_tokens=400), licence="Apache-2.0", min_thinking=8, n_completions=4)


def solve(question: str, seed: int) -> tuple[str, str]:
    a, b = (int(part) for part in question.removesuffix(" = ?").split(" + "))
    return f"First {a}, then {b} more: that is {a + b}.", f"It is \\boxed{{{a + b}}}."


def distiller(asker: Asker, scorer: Scorer, settings: Distill = SETTINGS) -> Distiller:
    sieve = Sieve(settings, byte_tokenizer().encode, teacher="t", temperature=0.7)
    return Distiller(sieve, asker, scorer.score)


def scorer() -> Scorer:
    return Scorer(RewardWeights(l_max=400, l_cache=100))


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@contextmanager
def http_asker(endpoint: Endpoint, budget: Budget) -> Iterator[Asker]:
    engine = HttpEngine(
        Address(base_url=endpoint.url, model="t"),
        budget=budget,
        n_parallel=8,
        tries=Tries(n=30, first_wait_s=0.001, longest_wait_s=0.01),
    )

    def request(question: str, seeds: tuple[int, ...], key: object) -> Request:
        return Request(prompt=(), messages=(Message(role="user", content=question),), seeds=seeds, max_tokens=400, key=key)

    def seed(name: str, place: int) -> int:
        return int(name.removeprefix("sum-")) * 10 + place

    try:
        yield Asker(engine, request=request, text=lambda w: w.text, seed=seed, n_parallel=8, meter=budget)
    finally:
        engine.close()


def free() -> Budget:
    return Budget(limit=float("inf"), price_in=1.0, price_out=1.0)


KINDS = {
    0: "First this and then that, and so it is.",
    1: "ok",
    2: "First this and then something else, so it is.",
    3: "",
}


def test_only_right_thoughtful_traces_are_kept_and_few_of_each_problem(tmp_path: Path) -> None:
    def script(prompt: str, seed: int) -> str:
        thinking, (_, summary) = KINDS[seed % 4], solve(prompt, seed)
        if seed % 4 == 2:
            summary = "It is \\boxed{-1}."
        return f"<think>\n{thinking}\n</think>\n{summary}" if seed % 4 != 3 else summary

    settings = SETTINGS.model_copy(update={"n_completions": 8, "most_per_problem": 1})
    with scorer() as s:
        asker = scripted_asker(ScriptedEngine(script, byte_tokenizer(), n_slots=64))
        tally = distiller(asker, s, settings).distil(PROBLEMS, tmp_path)
    assert tally.asked == 8 * len(PROBLEMS)
    assert {reason: n // len(PROBLEMS) for reason, n in tally.dropped.items() if n} == {
        "too little thinking": 2, "not right": 2, "malformed": 2, "more than a problem may have": 1,
    }  # fmt: skip
    kept = lines(tmp_path / "traces.jsonl")
    assert len(kept) == tally.kept == len(PROBLEMS)
    assert {row["thinking"] for row in kept} == {KINDS[0]}
    assert {row["pass_rate"] for row in kept} == {0.5}
    assert {(row["teacher"], row["licence"]) for row in kept} == {("t", "Apache-2.0")}


def test_no_cell_holds_more_than_its_share(tmp_path: Path) -> None:
    r = random.Random(0)
    rows = [{"id": str(i), "n_tokens": r.randint(10, 400), "cell": "easy" if i % 10 else "hard"} for i in range(600)]
    (tmp_path / "in").write_text("".join(json.dumps(row) + "\n" for row in rows))
    n = balance(tmp_path / "in", tmp_path / "out", 1.5)
    cells = Counter(row["cell"] for row in lines(tmp_path / "out"))
    assert n == sum(cells.values())
    assert set(cells) == {f"{d}, {length}" for d in ("easy", "hard") for length in ("short", "middling", "long")}
    assert sum(c for cell, c in cells.items() if cell.startswith("hard")) == 60  # the rare ones all stay
    assert max(cells.values()) < 180


def test_balancing_nothing_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("")
    assert balance(tmp_path / "in", tmp_path / "out", 2.0) == 0


def test_an_endpoint_that_fails_and_stalls_gives_every_trace_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = httpx.Timeout(STALL_S / 2)
    monkeypatch.setattr(httpx, "Timeout", lambda *_, **__: impatient)
    faults = ("", "500", "", "429", "cut", "", "", "", "stall")
    with serving(Endpoint(solve, faults=faults)) as endpoint, scorer() as s:
        with http_asker(endpoint, free()) as asker:
            first = distiller(asker, s).distil(PROBLEMS, tmp_path)
        with http_asker(endpoint, free()) as asker:
            again = distiller(asker, s).distil(PROBLEMS, tmp_path)
            assert asker.n_asked == 0
    assert first.asked == again.asked == 4 * len(PROBLEMS)
    assert len(lines(tmp_path / "traces.jsonl")) == 2 * len(PROBLEMS)
    assert set(endpoint.answered.values()) == {1}
    n_unknown = sum(faults[i % len(faults)] in ("cut", "stall") for i in range(endpoint.n_requests))
    most = (first.spent * 1e6 - 4 * len(PROBLEMS) * 50) / n_unknown
    assert 409 < most < 411, "of one that was cut or never came: 9 to 11 bytes of question and 400 tokens"


def test_a_budget_ends_the_asking_keeps_what_came_and_may_be_raised(tmp_path: Path) -> None:
    each = 50 / 1e6
    with serving(Endpoint(solve)) as endpoint, scorer() as s:
        with http_asker(endpoint, Budget(limit=30 * each, price_in=1.0, price_out=1.0)) as asker:
            some = distiller(asker, s)
            with pytest.raises(BudgetSpent):
                some.distil(PROBLEMS, tmp_path)
            assert 0 < some.sieve.tally.asked < 30
        n_before = sum(endpoint.answered.values())
        with http_asker(endpoint, free()) as asker:
            tally = distiller(asker, s).distil(PROBLEMS, tmp_path)
            assert asker.n_asked == 4 * len(PROBLEMS) - n_before
    assert tally.spent == pytest.approx(4 * len(PROBLEMS) * each)
    assert set(endpoint.answered.values()) == {1}


@pytest.mark.parametrize("usage", [(0, 0), (-100, -100), (20, 1), (20, 10**9)], ids=["nothing", "less", "too little", "too much"])
def test_usage_that_cannot_be_true_costs_the_longest_answer(tmp_path: Path, usage: tuple[int, int]) -> None:
    budget = free()
    with serving(Endpoint(solve, usage=usage)) as endpoint, scorer() as s, http_asker(endpoint, budget) as asker:
        distiller(asker, s).distil(PROBLEMS[:2], tmp_path)
    assert budget.spent >= 8 * 400 / 1e6


def test_what_is_watched_grows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def watch(tally: Tally) -> None:
        seen.append((tally.asked, tally.tokens))

    with serving(Endpoint(solve)) as endpoint, scorer() as s, http_asker(endpoint, free()) as asker:
        distiller(asker, s).distil(PROBLEMS, tmp_path, watch)
    assert seen == sorted(seen)
    assert len(seen) == len(PROBLEMS)


def test_a_trace_says_of_which_licence_and_data_set_its_problem_is(tmp_path: Path) -> None:
    rows = [{"id": f"p{i}", "question": f"{i} + 1 = ?", "reference": str(i + 1)} for i in range(3)]
    rows[0] |= {"licence": "MIT", "origin": "owner/name@0123abc"}
    rows[1] |= {"licence": "", "origin": ""}
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = Problems.model_validate({
        "source": "files", "n_train": 2, "n_held_out": 1,
        "families": [{"name": "mine", "options": {"path": str(tmp_path / "mine.jsonl")}}],
    })  # fmt: skip
    assert origins_of(wanted) == {"p0": Origin("MIT", "owner/name@0123abc")}
    engine = ScriptedEngine(lambda prompt, seed: "<think>\n{}\n</think>\n{}".format(*solve(prompt, seed)), byte_tokenizer())
    sieve = Sieve(SETTINGS, byte_tokenizer().encode, teacher="t", temperature=0.7, origins=origins_of(wanted))
    with scorer() as s:
        Distiller(sieve, scripted_asker(engine), s.score).distil(read_problems(Layout(path=tmp_path / "mine.jsonl")), tmp_path)
    said = {(row["id"][:2], row["problem_licence"], row["problem_origin"]) for row in lines(tmp_path / "traces.jsonl")}
    assert said == {("p0", "MIT", "owner/name@0123abc"), ("p1", "", ""), ("p2", "", "")}


@pytest.mark.parametrize(
    ("prices", "budget", "said"),
    [
        ("", 1.0, "--budget 1.0: budget=1 needs price_in and price_out"),
        ("price_in = 1.0", 0.0, "--budget 0.0: Input should be greater than 0"),
        ("price_in = 1.0", -1.0, "--budget -1.0: Input should be greater than 0"),
    ],
    ids=["no prices", "nothing", "less than nothing"],
)
def test_a_budget_that_cannot_be_kept_is_refused_before_anybody_is_asked(
    prices: str, budget: float, said: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    with serving(Endpoint(solve)) as endpoint:
        teacher = f'[distill]\nlicence = "x"\n[distill.teacher]\nmodel = "t={endpoint.url}"\nmax_tokens = 60\n{prices}\n'
        recipe.write_text((ROOT / "recipes" / "nano.toml").read_text(encoding="utf-8") + teacher, encoding="utf-8")
        with pytest.raises(RecipeError, match=re.escape(said)):
            command(recipe, tmp_path / "out", budget=budget)
        assert endpoint.n_requests == 0
    assert not (tmp_path / "out").exists()

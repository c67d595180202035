from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import pytest

from magistral.curation import problems, worked
from magistral.curation.sources.reasoning_gym import apportion
from magistral.errors import RecipeError, UnknownName
from magistral.flow import Problem
from magistral.recipe import Family, Problems

SUMS = Family(name="chain_sum", options={"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2})


def wanted(*families: Family, n_train: int = 30, n_held_out: int = 10, seed: int = 0) -> Problems:
    return Problems(n_train=n_train, n_held_out=n_held_out, seed=seed, families=families or (SUMS,))


def questions(of: list[Problem]) -> list[str]:
    return [problem.question for problem in of]


def test_the_same_seed_gives_the_same_problems_in_the_same_order() -> None:
    assert problems(wanted()) == problems(wanted())


def test_the_next_seed_gives_other_problems() -> None:
    one, other = problems(wanted())[0], problems(wanted(seed=1))[0]
    assert len({*questions(one), *questions(other)}) > 50  # of 60; the package's own seeds 0 and 1 would share 29 of 30


def test_no_question_is_asked_twice_nor_held_out_and_trained_on() -> None:
    narrow = Family(name="chain_sum", options={"min_terms": 2, "max_terms": 2, "max_digits": 1})  # 200 problems in all
    train, held_out = problems(wanted(narrow, narrow, n_train=100, n_held_out=50))
    assert (len(train), len(held_out)) == (100, 50)
    assert len({*questions(train), *questions(held_out)}) == 150
    assert len({problem.id for problem in train + held_out}) == 150


def test_one_question_from_two_families_counts_once() -> None:
    options: dict[str, Any] = {"min_terms": 2, "max_terms": 2, "max_digits": 1}
    other = Family(
        name="basic_arithmetic", options={**options, "operators": ["+", "-"], "allow_parentheses": False, "allow_negation": False}
    )
    train, held_out = problems(wanted(Family(name="chain_sum", options=options), other, n_train=100, n_held_out=50))
    assert len({*questions(train), *questions(held_out)}) == 150


def test_held_out_problems_stay_when_more_are_trained_on() -> None:
    _, few = problems(wanted(SUMS, Family(name="gcd"), n_train=20))
    _, many = problems(wanted(SUMS, Family(name="gcd"), n_train=200))
    assert few == many


def test_families_come_by_weight_and_mixed() -> None:
    train, held_out = problems(wanted(SUMS, Family(name="gcd", weight=3.0), n_train=40, n_held_out=8))
    assert Counter(p.family for p in train) == {"chain_sum": 10, "gcd": 30}
    assert Counter(p.family for p in held_out) == {"chain_sum": 2, "gcd": 6}
    assert len({p.family for p in train[:20]}) == 2


@pytest.mark.parametrize(
    ("n", "weights", "expected"),
    [
        (5, [1.0, 1.0], [3, 2]),
        (10, [1.0, 3.0], [3, 7]),
        (1, [1.0, 2.0], [0, 1]),
        (7, [0.5], [7]),
        (10, [0.1, 0.2, 0.7], [1, 2, 7]),
    ],
    ids=["tie", "half", "fewer than families", "one family", "shares that binary cannot write"],
)
def test_apportion(n: int, weights: list[float], expected: list[int]) -> None:
    assert apportion(n, weights) == expected


def test_a_sum_is_asked_in_few_words_and_its_reference_is_its_value() -> None:
    for problem in problems(wanted())[0]:
        expression, question = problem.question[: -len(" = ?")], problem.question
        assert question == f"{expression} = ?"
        terms = expression.replace("- ", "-").replace("+ ", "").split()
        assert problem.reference == str(sum(int(term) for term in terms))


def test_worked_solutions_reach_the_reference() -> None:
    for problem in problems(wanted())[0]:
        solution = worked(problem)
        assert solution is not None
        assert solution.endswith(f"\\boxed{{{problem.reference}}}.")


def test_other_families_keep_their_question() -> None:
    train, _ = problems(wanted(Family(name="gcd"), n_train=1, n_held_out=1))
    assert train[0].question.startswith("Find the Greatest Common Divisor (GCD) of these numbers: ")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (Family(name="chain_sums"), "no family named 'chain_sums' in reasoning_gym; did you mean 'chain_sum'?"),
        (Family(name="chain_sum", options={"max_term": 3}), "chain_sum has no option 'max_term'; did you mean 'max_terms'?"),
        (
            Family(name="chain_sum", options={"seed": 3}),
            "chain_sum.options.seed: leave it out, problems.seed, n_train and n_held_out say it",
        ),
        (Family(name="chain_sum", options={"min_terms": 5, "max_terms": 3}), "max_terms must be >= min_terms"),
        (Family(name="chain_sum", options={"min_terms": "two"}), "chain_sum refuses its options"),
        (Family(name="chain_sum", options={"min_digits": 5000, "max_digits": 5000}), "chain_sum refuses its options"),
        (
            Family(name="chain_sum", options={"min_terms": 1, "max_terms": 1, "max_digits": 1}),
            "'chain_sum' gave too few different problems in 1400 draws, 40 are asked for",
        ),
    ],
    ids=[
        "unknown family",
        "unknown option",
        "an option that is ours",
        "impossible options",
        "option of a wrong type",
        "option of a wrong type, found late",
        "too few",
    ],
)
def test_a_family_that_cannot_be_had_says_what_to_change(family: Family, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        problems(wanted(family))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_source_lists_the_known() -> None:
    with pytest.raises(UnknownName, match=r"no source of problems named 'gym'; known: .*reasoning_gym"):
        problems(Problems(source="gym", n_train=1, n_held_out=1, families=(SUMS,)))


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="reasoning_gym")

    monkeypatch.setattr(importlib, "import_module", not_there)
    with pytest.raises(RecipeError, match="scripts/install problems"):
        problems(wanted())

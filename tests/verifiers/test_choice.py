"""Multiple choice: the key is not where the model sees it, and a letter is read however it is dressed."""

from __future__ import annotations

import json
import time

import pytest

from magistral.flow import Outcome, Problem
from magistral.text.trace import parse
from magistral.verifiers.choice import ChoiceVerifier, ask
from magistral.verifiers.pool import Pool

VERIFIER = ChoiceVerifier(Pool())
OPTIONS = json.dumps({"key": "B", "options": ["Rome", "Paris", "10 cm", "Oslo"]})
CAPITAL = Problem(id="capital", question="The capital of France?", reference="Paris")


@pytest.mark.parametrize(
    ("answer", "reference", "outcome"),
    [
        ("B", "B", Outcome.RIGHT),
        ("b", "B", Outcome.RIGHT),
        ("(B)", "B", Outcome.RIGHT),
        ("B.", "(B)", Outcome.RIGHT),
        (r"\text{B}", "B", Outcome.RIGHT),
        (r"\textbf{(B)}", "B", Outcome.RIGHT),
        (r"$\mathrm{B}$", "B", Outcome.RIGHT),
        ("Option B", "B", Outcome.RIGHT),
        ("A", "B", Outcome.WRONG),
        ("A, B", "B", Outcome.UNPARSABLE),
        ("A) B", "B", Outcome.UNPARSABLE),
        ("AB", "B", Outcome.UNPARSABLE),
        ("", "B", Outcome.UNPARSABLE),
        ("all", "B", Outcome.UNPARSABLE),
        ("B) Paris", OPTIONS, Outcome.RIGHT),
        ("Paris", OPTIONS, Outcome.RIGHT),
        (r"\text{B) paris}", OPTIONS, Outcome.RIGHT),
        ("Rome", OPTIONS, Outcome.WRONG),
        ("B) Rome", OPTIONS, Outcome.UNPARSABLE),
        ("E", OPTIONS, Outcome.UNPARSABLE),
        ("Madrid", OPTIONS, Outcome.UNPARSABLE),
        ("B", "", Outcome.ERROR),
        ("B", "Paris", Outcome.ERROR),
    ],
)
def test_an_answer_names_one_option(answer: str, reference: str, outcome: Outcome) -> None:
    assert VERIFIER.compare(answer, reference).outcome is outcome


@pytest.mark.parametrize(
    ("summary", "outcome"),
    [
        (r"It is \boxed{B}.", Outcome.RIGHT),
        ("Answer: B", Outcome.RIGHT),
        ("**Answer:** (B)", Outcome.RIGHT),
        ("Answer: A\nNo.\nFinal answer: B", Outcome.RIGHT),
        ("Answer: B\n\\boxed{A}", Outcome.WRONG),
        ("B", Outcome.UNPARSABLE),
    ],
)
def test_the_box_counts_and_without_it_the_last_answer_line(summary: str, outcome: Outcome) -> None:
    problem = Problem(id="p", question="?", reference="B", kind="choice")
    assert VERIFIER.verify(parse(f"<think>A</think>{summary}"), problem).outcome is outcome


@pytest.mark.parametrize(
    "summary",
    ["\n" * 60_000, "answer" + " " * 60_000, r"\boxed{" * 20_000, rf"\boxed{{A) {',' * 4000}}}", rf"\boxed{{\text{' ' * 4000}b}}",
     rf"\boxed{{é{' ' * 4000}b}}"],
    ids=["lines", "spaces after the word", "boxes", "commas", "spaces in a command", "spaces before a letter"],
)  # fmt: skip
@pytest.mark.parametrize("reference", ["B", OPTIONS], ids=["a letter", "options"])
def test_long_answers_are_read_at_once(summary: str, reference: str) -> None:
    start = time.process_time()
    VERIFIER.verify(parse(f"<think>A</think>{summary}"), Problem(id="p", question="?", reference=reference, kind="choice"))
    assert time.process_time() - start < 2  # some milliseconds


def test_each_completion_has_its_own_order_and_its_key_follows() -> None:
    options = ["Rome", "Paris", "Madrid", "Oslo"]
    asked = [ask(CAPITAL, options, seed=seed) for seed in range(40)]
    assert asked[7] == ask(CAPITAL, options, seed=7)
    keys = [json.loads(p.reference)["key"] for p in asked]
    assert set(keys) == set("ABCD")
    for problem, key in zip(asked, keys, strict=True):
        assert f"\n{key}) Paris" in problem.question
        assert '"key"' not in problem.question
        assert VERIFIER.compare("Paris", problem.reference).outcome is Outcome.RIGHT

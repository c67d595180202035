"""Each filter against a set of which everything is known: precision and recall of at least 95 %."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from magistral.curation.candidate import Candidate, benchmark_questions
from magistral.curation.contamination import Contamination, prose_of
from magistral.curation.difficulty import Votes
from magistral.curation.duplicates import Duplicates
from magistral.curation.form import form, judged
from magistral.curation.sources.programs import MBPP_TEST
from magistral.curation.stage import Dropped
from tests.curation.planted import Planted, precision_and_recall, story

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
N = 60
"""Of each kind, and ten times as many that must stay."""


def dropped(found: object) -> dict[str, str]:
    assert isinstance(found, list)
    return {d.candidate.id: d.reason for d in found if isinstance(d, Dropped)}


@pytest.fixture
def stories() -> Planted:
    planted, r = Planted(), random.Random(1)
    for _ in range(10 * N):
        planted.add("", *story(r))
    return planted


PROOFS = (
    "Let {n} people meet. Prove that two of them know equally many others.",
    "Show that {n} divides the product of any {n} integers that follow on each other.",
    "Find all integers below {n} that are sums of two squares, and prove that there are no others.",
    "Given a board with {n} squares, demonstrate that it cannot be tiled by triples.",
    "A set has {n} points. Verify that some circle holds half of them. Justify your answer.",
)
PARTS = (
    "A box weighs {n} kg. (a) What do 3 boxes weigh? (b) How many boxes weigh over a ton?",
    "Take f(x) = x^2 - {n}.\n1. Find its roots.\n2. Find its minimum.\n3. Sketch it.",
    "Part a: compute {n} squared. Part b: find its last digit.",
    "A bus carries {n} people. i) How many buses for 900? ii) How many for 1000?",
)
INCOMPLETE = (
    "In the figure below the angle at A is {n} degrees. What is the angle at B?",
    "![](images/{n}.png) Find the area of the shaded region.",
    "Using the result of the previous problem, compute the sum for {n}.",
    "A farmer has {n} sheep and sells some of them to the",
    "There are {n} red balls in a box.",
)


def test_the_format_filter_finds_what_was_planted(stories: Planted) -> None:
    for i in range(N):
        for why, texts in (("proof", PROOFS), ("several parts", PARTS), ("incomplete", INCOMPLETE)):
            stories.add(why, texts[i % len(texts)].format(n=17 + i), "5")
        stories.add("incomplete", story(random.Random(i + 1000))[0], "")
    found = dropped(list(form(iter(stories.shuffled()))))
    for reason in ("proof", "several parts", "incomplete"):
        precision, recall = precision_and_recall(stories, found, reason)
        assert precision >= 0.95, reason
        assert recall >= 0.95, reason


@pytest.mark.parametrize(
    ("question", "reference", "asked", "answer"),
    [
        ("What is $2+3$? (A) 4 (B) 5 (C) 6 (D) 7", "B", "What is $2+3$?", "5"),
        ("What is 7 squared?\n\nA. 14\nB. 48\nC. 49", "(C)", "What is 7 squared?", "49"),
        (r"Find $x$. $\textbf{(A)}\ 1 \qquad \textbf{(B)}\ \frac{1}{2}$", "B", "Find $x$.", r"\frac{1}{2}"),
    ],
    ids=["in a line", "a line each", "LaTeX"],
)
def test_a_choice_becomes_an_open_question(question: str, reference: str, asked: str, answer: str) -> None:
    found = judged(Candidate(id="a", question=question, reference=reference))
    assert isinstance(found, Candidate)
    assert (found.question, found.reference) == (asked, answer)


def test_options_apart_from_the_question_are_read() -> None:
    found = judged(Candidate(id="a", question="What is the capital of France?", reference="A", options=("Paris", "Rome")))
    assert isinstance(found, Candidate)
    assert (found.reference, found.options) == ("Paris", ())


@pytest.mark.parametrize(
    ("question", "reference", "reason"),
    [
        ("Which of the following is prime? (A) 4 (B) 5 (C) 6", "B", "choice that needs its options"),
        ("What is 2 + 2? (A) 3 (B) 5 (C) none of the above", "C", "choice that needs its options"),
        ("What is 2 + 2? (A) 3 (B) 4", "D", "incomplete"),
        ("What is 2 + 2?", "an essay " * 50, "uncheckable answer"),
        ("Compute both.", "(a) 3 (b) 4", "several parts"),
        ("", "4", "incomplete"),
    ],
    ids=["which of the following", "none of the above", "no such option", "prose", "an answer in parts", "no question"],
)
def test_what_cannot_be_asked_openly_is_dropped(question: str, reference: str, reason: str) -> None:
    found = judged(Candidate(id="a", question=question, reference=reference))
    assert isinstance(found, Dropped)
    assert found.reason == reason


@pytest.mark.parametrize(
    "question",
    [
        "Players take turns. (i) Each takes a stone. (ii) Nobody takes two. How many stones are left of 10?",
        "To show that he can, Bo needs a mean of 80. What must he score after 70 and 85?",
        "Find the least $n$ such that (1) $n > 3$ and (2) $n$ is odd.",
        "What is the smallest distance between the origin and a point on the graph of $y = x^2 - 9$?",
    ],
    ids=["numbered rules", "show that as a purpose", "numbered conditions", "a graph that needs no picture"],
)
def test_what_only_looks_like_it_stays(question: str) -> None:
    assert isinstance(judged(Candidate(id="a", question=question, reference="5")), Candidate)


def test_duplicates_are_found_and_templates_with_other_numbers_stay(stories: Planted) -> None:
    r = random.Random(2)
    originals = r.sample(stories.candidates, 3 * N)
    for original in originals[:N]:
        stories.add("duplicate", original.question.upper().replace(".", " . "), original.reference)
    for original in originals[N : 2 * N]:
        stories.add("duplicate with another reference", original.question, "1")
    for original in originals[2 * N :]:
        words = original.question.split(" ")
        words[r.randrange(3)] = "one"
        stories.add("near duplicate", " ".join(["Once", *words]), original.reference)
    for original in originals[:N]:  # the same story with other numbers is another problem
        stories.add("", "".join(str((int(c) + 1) % 10) if c.isdigit() else c for c in original.question), "2")
    found = dropped(list(Duplicates(0.7)(iter(stories.shuffled()))))
    for reason in ("duplicate", "duplicate with another reference", "near duplicate"):
        precision, recall = precision_and_recall(stories, found, reason)
        assert precision >= 0.95, reason
        assert recall >= 0.95, reason


def test_an_operator_makes_another_problem() -> None:
    questions = ["Compute 2 + 3.", "Compute 2 - 3.", "Compute 2 * 3."]
    candidates = [Candidate(id=str(i), question=q, reference="1") for i, q in enumerate(questions)]
    assert not dropped(list(Duplicates(0.7)(iter(candidates))))


def test_another_problem_with_a_name_that_is_taken_gets_a_new_one() -> None:
    both = [Candidate(id="a", question=q, reference="1") for q in ("What is one?", "How many legs has a horse?")]
    assert [c.id for c in Duplicates(0.7)(iter(both)) if isinstance(c, Candidate)] == ["a", "a~1"]


def test_problems_of_benchmarks_are_found(stories: Planted) -> None:
    r = random.Random(3)
    benchmark = [story(r)[0] for _ in range(N)] + ["What is 17 times 19?"]
    for i, question in enumerate(benchmark):
        words = question.split(" ")
        copies = (
            question,
            f"Solve this one. {question} Put it in a box.",
            question.replace(",", ""),
            " ".join(words[: -len(words) // 4]),
        )
        stories.add("in a benchmark", copies[i % 3] if len(words) < 8 else copies[i % 4], "5")
    stories.add("", "What is 17 times 21?", "357")
    filter_ = Contamination([("b", q, False) for q in benchmark], n=8, overlap=0.5)
    precision, recall = precision_and_recall(stories, dropped(list(filter_(iter(stories.shuffled())))), "in a benchmark")
    assert precision >= 0.95
    assert recall >= 0.95


def test_nothing_of_a_benchmark_that_must_not_be_published_is_shown() -> None:
    question = "Which particle carries the force between the two bodies of this experiment?"
    [found] = Contamination([("gpqa 1", question, True)], n=8, overlap=0.5)(
        iter([Candidate(id="a", question=question, reference="x")])
    )
    assert isinstance(found, Dropped)
    assert "particle" not in found.candidate.line
    assert found.detail == "gpqa 1: 100% of its runs of 8 words"


MBPP = "Write a function to find the area of a square. It must pass these tests:\n```python\nassert area(2) == 4\n```"
CUBES = (
    'def cubes(n):\n    """ Return the cubes of all odd numbers up to n,\n    largest first.\n'
    '    >>> cubes(3)\n    [27, 1]\n    """\n'
)
HALF = 'def half(s: str):\n    """Return the first half of s.\n    For example half(\'ab\') is \'a\'.\n    """'


@pytest.mark.parametrize(
    ("question", "prose"),
    [
        (MBPP, "Write a function to find the area of a square."),
        (CUBES, "Return the cubes of all odd numbers up to n,\n    largest first."),
        (HALF, "Return the first half of s."),
        ("/*\nReturn the sum.\nsum({1}) => 1\n*/\nint sum(vector<int> v) {", "Return the sum."),
        ("What is 17 times 19?", ""),
    ],
    ids=["asserts", "a docstring with calls", "a docstring with words", "C++", "no code"],
)
def test_the_prose_of_a_question_of_programs(question: str, prose: str) -> None:
    assert prose_of(question).strip() == prose


@pytest.mark.parametrize(
    ("question", "is_found"),
    [
        ("Write a function to find the area of a square.", True),
        ("In Python: write a function to find the area of a square. Its name is `area`.", True),
        ("Write a function to find the area of a circle.", False),
        ("Return the cubes of all odd numbers up to n, largest first.", True),
        ("Return the cubes of all even numbers up to n, largest first.", False),
        ('def h(s):\n    """Return the first half of s.\n\n    h("ab") == "a"\n    """', True),
        ("Return the first half of s in reverse.", False),
        ("Solve with care. What is 17 times 19? Show each step.", True),
        ("What is 17 times 19 minus 4?", False),
        ("First a product: What is 17 times 19", True),
        ("Take care. Solve for $x$. Here $x + 2 = 9$.", False),
        ("Solve for $x$.", True),
        ("Take care. Compute $5!$ Show all.", True),
    ],
    ids=["prose", "prose among words", "another pattern", "docstring", "another docstring", "short docstring",
         "no whole sentence", "between sentences", "more of a sentence", "after a colon",
         "what stands in many", "all of it", "number and formula"],
)  # fmt: skip
def test_prose_and_short_questions_are_found_whole(question: str, is_found: bool) -> None:
    known = [("b", q, False) for q in (MBPP, CUBES, HALF, "What is 17 times 19?", "Solve for $x$.", "Compute $5!$")]
    [found] = Contamination(known, n=8, overlap=0.5)(iter([Candidate(id="a", question=question, kind="code")]))
    assert isinstance(found, Dropped) == is_found


def test_the_public_benchmarks_are_found_by_their_prose_and_hardly_in_each_other() -> None:
    if not DATA.exists():
        pytest.skip(f"the benchmarks are not here: {DATA}")
    programs = list(benchmark_questions(("mbpp", "humaneval"), DATA))
    stripped = [Candidate(id=name, question=prose_of(question), kind="code") for name, question, _ in programs]
    assert len(dropped(list(Contamination(programs, n=8, overlap=0.5)(iter(stripped))))) == len(programs) == 664
    rows = [json.loads(line) for line in (DATA / "mbpp" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines()]
    rest = [Candidate(id=str(r["task_id"]), question=r["text"], kind="code") for r in rows if r["task_id"] not in MBPP_TEST]
    assert len(rest) == 474
    assert len(dropped(list(Contamination(programs, n=8, overlap=0.5)(iter(rest))))) <= 7  # say the same as one of the test part
    math = [Candidate(id=name, question=q) for name, q, _ in benchmark_questions(("math500", "gsm8k", "aime24"), DATA)]
    assert not dropped(list(Contamination(programs, n=8, overlap=0.5)(iter(math))))


@pytest.mark.parametrize(
    ("n_top", "n_right", "least", "most"),
    [
        (0, 8, 0.0, 0.0),
        (16, 0, 0.95, 1.0),
        (12, 0, 0.9, 1.0),
        (12, 4, 0.3, 0.75),
        (8, 8, 0.05, 0.05),
        (1, 0, 0.0, 0.3),
        (4, 12, 0.0, 0.01),
    ],
    ids=["nobody", "all", "most, and none the reference", "most, some the reference", "as many: the prior", "one alone", "few"],
)
def test_the_probability_of_a_wrong_reference(n_top: int, n_right: int, least: float, most: float) -> None:
    votes = Votes(n_right=n_right, n_judged=16, top="5", n_top=n_top)
    assert least - 1e-9 <= votes.wrong_reference <= most + 1e-9


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"reference": 4}, "4"),
        ({"answer": ["4"]}, "4"),
        ({"final_answer": "4"}, "4"),
        ({"reference": {"tests": []}}, '{"tests": []}'),
    ],
    ids=["number", "list of one", "another name", "tests"],
)
def test_a_reference_is_read_as_text(row: dict[str, object], reference: str) -> None:
    assert Candidate.model_validate({"id": 1, "question": "q", **row}).reference == reference


def test_what_stages_read_again_is_what_they_wrote(tmp_path: Path) -> None:
    before = Candidate(id="a", question="½ of 4?", reference="2", notes={"grade": {"pass_rate": 0.5}}, solutions=())
    assert Candidate.model_validate_json(before.line) == before

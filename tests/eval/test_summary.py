from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from magistral.errors import RunFailed, UserError
from magistral.eval import summary
from magistral.eval.judge import classes, equality
from magistral.eval.protocol import PROTOCOLS, UNKNOWN, How, Measuring, departures, missing
from magistral.eval.published import PUBLISHED, published
from magistral.eval.result import add_comparisons, sum_up
from magistral.eval.scores import share
from magistral.eval.store import Lines, hold_to, read_verdicts
from magistral.flow import Problem
from magistral.verifiers.judges import Judges


def row(problem: str, index: int, answer: str, **changes: Any) -> dict[str, Any]:
    outcome = {"": "unparsable", "2": "right"}.get(answer, "wrong")
    return {
        "problem_id": problem, "index": index, "family": "", "language": "en", "kind": "math", "outcome": outcome, "reason": "",
        "answer": answer, "judge": "", "versions": "", "finish": "stop", "fault": "", "one_language": True, "n_tokens": 10,
        "n_prompt": 5, "n_thinking": 4,
    } | changes  # fmt: skip


def stored(path: Path, rows: list[dict[str, Any]]) -> Path:
    with Lines(path) as file:
        for r in rows:
            file.add(r)
    return path


def exact(kind: str) -> Any:
    return None if kind == "code" else lambda a, b: a == b


def table(tmp_path: Path, rows: list[dict[str, Any]]) -> Any:
    return summary.with_classes(read_verdicts(stored(tmp_path / "v.jsonl", rows)), exact)


def test_equal_wrong_answers_are_one_class_by_the_verifier() -> None:
    answers = ["2", "0.5", "1/2", "3", "", "0.5"]
    rows = [row("p", i, answer) for i, answer in enumerate(answers)]
    assert classes(rows, lambda a, b: {a, b} == {"0.5", "1/2"}) == [0, 1, 1, 2, -1, 1]


def test_answers_that_could_not_be_read_are_not_compared() -> None:
    def same(a: str, b: str) -> bool:
        raise AssertionError(f"{a} was compared with {b}")

    rows = [
        row("p", i, x, outcome="timed_out" if x.startswith("9^") else "wrong")
        for i, x in enumerate(["9^9^9", "9^9^8", "3", "9^9^9"])
    ]
    assert classes(rows, same) == [1, 3, 2, 1]


@pytest.mark.parametrize(
    ("answer", "other", "equal"),
    [("0.5", "\\frac{1}{2}", True), ("3", "4", False), ("3", " ", False)],
    ids=["another spelling", "another number", "no reference"],
)
def test_wrong_answers_are_compared_by_the_verifier(answer: str, other: str, *, equal: bool) -> None:
    with Judges() as judges:
        same = equality("math", judges)
        assert same is not None
        assert same(answer, other) is equal
        assert equality("code", judges) is None


def test_scores_of_two_problems_by_hand(tmp_path: Path) -> None:
    rows = [row("a", i, x) for i, x in enumerate(["2", "2", "3"])] + [row("b", i, x) for i, x in enumerate(["2", "3", ""])]
    rows[5] |= {"finish": "length", "fault": "no closing mark", "n_tokens": 40, "one_language": False}
    random.Random(0).shuffle(rows)
    counts = summary.counted(table(tmp_path, rows))
    found = {name: s["value"] for name, s in summary.scores(counts).items()}
    assert found == pytest.approx({
        "pass_at_1": (2 / 3 + 1 / 3) / 2, "pass_at_3": 1.0, "maj_at_3": (1 + 1 / 2) / 2, "truncated": 1 / 6, "malformed": 1 / 6,
        "wrong_language": 1 / 6, "well_formed": 5 / 6, "tokens": (10 + 20) / 2,
    })  # fmt: skip
    every = summary.at_every_k(counts)
    assert every["pass_at"] == pytest.approx([1 / 2, (1 + 2 / 3) / 2, 1.0])
    # of b two are drawn: {2, 3} is a tie, {2, silent} is won, {3, silent} is lost
    assert every["maj_at"][1] == pytest.approx(((1 + 1 / 2 + 1 / 2) / 3 + (1 / 2 + 1 + 0) / 3) / 2)


def test_translations_of_one_problem_are_one_draw(tmp_path: Path) -> None:
    answers = {"en-1": "2", "fr-1": "2", "en-2": "3", "fr-2": "3", "2025-I-3-en": "2", "2025-I-3-fr": "3"}
    rows = [row(name, 0, x, language="en" if "en" in name else "fr") for name, x in answers.items()]
    counts = summary.counted(table(tmp_path, rows))
    assert summary.scores(counts)["pass_at_1"] == share([1.0, 0.0, 0.5])
    assert summary.by(counts, counts.language)["fr"]["pass_at_1"] == share([1.0, 0.0, 0.0])


def test_what_no_verifier_judged_counts_for_nothing(tmp_path: Path) -> None:
    rows = [row("a", 0, "2"), row("a", 1, "3", outcome="error"), row("b", 0, "3", outcome="error"), row("b", 1, "3")]
    counts = summary.counted(table(tmp_path, rows))
    assert counts.n.tolist() == [1, 1]
    assert summary.scores(counts)["pass_at_1"]["value"] == 0.5


def test_one_completion_that_cannot_be_judged_renames_no_score(tmp_path: Path) -> None:
    rows = [row("a", i, "2") for i in range(3)] + [row("b", 0, "2"), row("b", 1, "3"), row("b", 2, "3", outcome="error")]
    counts = summary.counted(table(tmp_path, rows))
    found = {name: s["value"] for name, s in summary.scores(counts).items()}
    # b's two judged ones stand for its three: a tie, of which one is right
    assert (found["pass_at_3"], found["maj_at_3"], found["pass_at_1"]) == (1.0, (1 + 1 / 2) / 2, (1 + 1 / 2) / 2)
    assert summary.at_every_k(counts) == {"pass_at": [0.75, 1.0, 1.0], "maj_at": [0.75, 0.75, 0.75]}


def test_only_where_the_paper_names_the_runs_is_a_protocol_the_papers() -> None:
    named = {name for name, p in PROTOCOLS.items() if p.of_paper}
    assert named == {"aime24", "aime25", "aime_multilingual", "livecodebench_v5", "livecodebench_v6"}


def test_nothing_judged_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="none of 1 completions could be judged"):
        summary.counted(table(tmp_path, [row("a", 0, "2", outcome="error")]))


def test_programs_are_not_voted_on(tmp_path: Path) -> None:
    counts = summary.counted(table(tmp_path, [row("a", i, "x = 1", kind="code") for i in range(2)]))
    assert [name for name in summary.scores(counts) if name.startswith("maj")] == []
    assert "maj_at" not in summary.at_every_k(counts)


def test_accuracy_by_length_is_of_fifths(tmp_path: Path) -> None:
    rows = [row(f"p{i}", 0, "2" if i < 4 else "3", n_thinking=i) for i in range(10)]
    found = summary.by_length(table(tmp_path, rows))
    assert [(b["low"], b["high"], b["n"], b["right"]) for b in found] == [
        (0, 1, 2, 1.0), (2, 3, 2, 1.0), (4, 5, 2, 0.0), (6, 7, 2, 0.0), (8, 9, 2, 0.0)
    ]  # fmt: skip


def test_cost_for_each_right_answer(tmp_path: Path) -> None:
    rows = [row("a", i, x) for i, x in enumerate(["2", "2", "3", "3"])]
    told = summary.totals(table(tmp_path, rows), (1.0, 10.0))
    assert told["tokens_out_per_right_answer"] == 20
    assert told["cost_per_right_answer"] == pytest.approx((20 * 1.0 + 40 * 10.0) / 1e6 / 2)


SETTINGS = Measuring(
    name="gsm8k",
    benchmark="gsm8k",
    model="ours",
    n_problems=1319,
    data="d",
    n_runs=1,
    temperature=0.7,
    top_p=1.0,
    max_tokens=32_768,
)
PROBLEMS = [Problem(id=name, question=f"What is {name}?", reference="2") for name in "ab"]
ASKING = {"seconds": 1.0, "engine_busy": 0.99, "prices": None}


def measured(
    folder: Path, answers: dict[str, str], settings: Measuring, *, private: bool = False, how: How = UNKNOWN
) -> dict[str, Any]:
    folder.mkdir(parents=True)
    hold_to(folder, how)
    stored(folder / "verdicts.jsonl", [row(name, 0, answer) for name, answer in answers.items()])
    kept = {"index": 0, "thinking": "I add.", "summary": "2"}
    stored(folder / "completions.jsonl", [{"problem_id": name} | kept for name in answers])
    with Judges() as judges:
        sum_up(settings, PROBLEMS, folder, judges, ASKING, private=private)
    result: dict[str, Any] = json.loads((folder / "eval.json").read_text())
    return result


def test_two_models_are_compared_problem_by_problem_with_what_else_differs(tmp_path: Path) -> None:
    ours = measured(tmp_path / "ours" / "gsm8k", {"a": "2", "b": "3"}, SETTINGS)
    assert ours["hardest"][0]["problem_id"] == "b"
    assert ours["hardest"][0]["traces"][0]["thinking"] == "I add."
    measured(tmp_path / "other" / "gsm8k", {"a": "3", "b": "3"}, SETTINGS.model_copy(update={"model": "x", "temperature": 1.0}))
    add_comparisons(tmp_path / "ours" / "gsm8k", [tmp_path / "other", tmp_path / "nothing"])
    (found,) = json.loads((tmp_path / "ours" / "gsm8k" / "eval.json").read_text())["compared"]
    assert (found["with"], found["n_better"], found["n_worse"], found["difference"]["value"]) == ("x", 1, 0, 0.5)
    assert found["flags"] == ["the other: temperature 1 instead of 0.7"]


def test_runs_without_a_common_problem_are_not_compared(tmp_path: Path) -> None:
    measured(tmp_path / "ours" / "gsm8k", {"a": "2"}, SETTINGS)
    measured(tmp_path / "other" / "gsm8k", {"b": "2"}, SETTINGS)
    with pytest.raises(UserError, match=r"ours/gsm8k and .*other/gsm8k cannot be compared: no problem in common: 'a'"):
        add_comparisons(tmp_path / "ours" / "gsm8k", [tmp_path / "other"])


def test_of_a_private_benchmark_no_text_goes_into_the_result(tmp_path: Path) -> None:
    result = measured(tmp_path / "gpqa", {"a": "2", "b": "3"}, SETTINGS, private=True)
    text = json.dumps(result)
    assert [h["problem_id"] for h in result["hardest"]] == ["b", "a"]
    assert "What is" not in text
    assert "I add." not in text


def test_departures_name_what_differs_from_the_protocol() -> None:
    assert departures(SETTINGS) == []
    changed = SETTINGS.model_copy(update={"n_runs": 2, "selection": "4 of the problems"})
    assert departures(changed) == ["n_runs 2 instead of 1", "4 of the problems"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (UNKNOWN, []),
        (How(weights="float32"), []),
        (How(weights="as stored"), []),
        (How(weights="int8"), ["weights in int8 instead of full precision"]),
        (How(weights="Q4_K, float32"), ["weights in Q4_K, float32 instead of full precision"]),
        (How(own_system=False), ["a system prompt of --system: 'Be brief.'"]),
    ],
    ids=["an endpoint", "exact", "llama.cpp, exact", "int8", "a file of 4 bits", "a system prompt"],
)
def test_what_else_an_answer_depends_on_is_a_departure(how: How, told: list[str]) -> None:
    assert departures(SETTINGS.model_copy(update={"system": "Be brief."}), how) == told


@pytest.mark.parametrize(
    ("benchmark", "n_of", "selection", "told"),
    [
        ("livecodebench_v6", {"en": 1043}, "", []),  # 1055 less 12 that are unfit
        ("livecodebench_v6", {"en": 1}, "", ["1 of 1055 problems"]),
        ("livecodebench_v5", {"en": 400}, "with the problems that its errata call unfit", ["400 of 880 problems"]),
        ("livecodebench_v5", {"en": 80}, "contests from 2024-10-01", []),
        ("math500", {"en": 20}, "20 of the problems", []),
        ("mgsm", {"en": 250, "fr": 249}, "languages en, fr", ["fr: 249 of 250 problems"]),
        (
            "mgsm",
            dict.fromkeys(("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te"), 250),
            "",
            ["without the languages th, zh"],
        ),
        ("aime_multilingual", {"de": 29, "fr": 30}, "", ["de: 29 of 30 problems"]),
    ],
    ids=["whole", "one", "one file with unfit ones", "window", "drawn", "a torn language", "no Thai", "a problem too few"],
)
def test_problems_that_were_not_there_are_told(benchmark: str, n_of: dict[str, int], selection: str, told: list[str]) -> None:
    changes = {"benchmark": benchmark, "n_problems": sum(n_of.values()), "selection": selection}
    languages = [language for language, n in n_of.items() for _ in range(n)]
    assert missing(SETTINGS.model_copy(update=changes), languages) == told


def test_weights_and_system_prompts_that_differ_are_said_of_a_comparison(tmp_path: Path) -> None:
    for name, how, system in (("ours", How(weights="int8"), ""), ("other", How(weights="float32"), "Be brief.")):
        result = measured(
            tmp_path / name / "gsm8k", {"a": "2", "b": "3"}, SETTINGS.model_copy(update={"system": system}), how=how
        )
        assert (result["weights"], result["system"]) == (how.weights, system)
    add_comparisons(tmp_path / "ours" / "gsm8k", [tmp_path / "other"])
    (found,) = json.loads((tmp_path / "ours" / "gsm8k" / "eval.json").read_text())["compared"]
    assert found["flags"] == [
        "weights int8 against float32", "their system prompts", "ours: weights in int8 instead of full precision"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("benchmark", "references", "n"),
    [
        ("aime_multilingual", ["204", "025", "315"], 7),  # seven languages
        ("aime_multilingual", ["204", "70", "588"], 0),  # 70 and 588 begin AIME 2025
        ("aime25", ["70", "588"], len([row for row in PUBLISHED if row.benchmark == "aime25"])),
    ],
    ids=["2024 translated", "2025 translated", "its own numbers"],
)
def test_translations_of_another_year_stand_beside_no_published_number(benchmark: str, references: list[str], n: int) -> None:
    assert len(published(benchmark, references)) == n


def test_a_report_says_why_it_has_no_published_number_of_another_years_translations(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"benchmark": "aime_multilingual", "selection": "2 of the problems"})
    result = measured(tmp_path / "aime", {"a": "2", "b": "3"}, settings)
    assert result["published"] == []
    assert result["departures"][-1] == "not of AIME 2024, as the published numbers are"


def test_published_numbers_are_of_benchmarks_that_there_are_and_each_once() -> None:
    assert {row.benchmark for row in PUBLISHED} <= set(PROTOCOLS)
    names = [(row.benchmark, row.model, row.score, row.language) for row in PUBLISHED]
    assert len(names) == len(set(names))
    assert all(0 < row.value <= 100 and row.source for row in PUBLISHED)

"""Votes and checked traces: claims are compared by what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from magistral.serve.checks import check_trace
from magistral.serve.claims import Claims, claim_of, explicit_claim
from magistral.serve.equalities import find_steps
from magistral.serve.events import End, Ended, Usage, Whole
from magistral.serve.votes import Ballot
from tests.serve.fakes import Scripted, serving
from tests.serve.test_app import BODY


@pytest.fixture(scope="module")
def claims() -> Iterator[Claims]:
    started = Claims()
    yield started
    started.close()


@pytest.mark.parametrize(
    ("answer", "claim"),
    [
        (r"So it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("The answer is **391**.", "391"),
        ("First 340, then 51, so the result: 391 and done in 2 steps.", "391"),
        ("It costs 1,234.50 in all", "1,234.50"),
        ("Paris.", "Paris"),
        ("A long story that comes to nothing definite at all, told at length and in many words.", ""),
        ("", ""),
    ],
    ids=["box", "said", "said before other numbers", "last number", "a short answer", "a long one", "none"],
)
def test_the_claim_of_an_answer(answer: str, claim: str) -> None:
    assert claim_of(answer) == claim


def test_a_number_that_merely_occurs_is_no_explicit_claim() -> None:
    assert explicit_claim("17 * 23, let me see, 340 + 51") == ""
    assert explicit_claim("so the answer is 391, I think") == "391"


STEPS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "in a sentence": ("so 17 * 20 = 340 and 17 * 3 = 51.", [("17 * 20", "340"), ("17 * 3", "51")]),
    "a chain": ("2 + 3 + 4 = 5 + 4 = 9", [("2 + 3 + 4", "5 + 4"), ("5 + 4", "9")]),
    "after a bullet": ("- 3 + 4 = 7", [("- 3 + 4", "7")]),
    "after a number of a list": ("1. 17 * 20 = 340", [("17 * 20", "340")]),
    "in LaTeX": (r"\(340 + 51 = 391\)", [("340 + 51", "391")]),
    "with a fraction": (r"\frac{1}{2} + \frac{1}{3} = \frac{5}{6}", [(r"\frac{1}{2} + \frac{1}{3}", r"\frac{5}{6}")]),
    "a definition": ("n = 5", []),
    "words on both sides": ("speed = distance / time", []),
    "units": ("3 * 5 cm = 15 cm", [("3 * 5 cm", "15 cm")]),
    "a conversion": ("2 h = 120 min", [("2 h", "120 min")]),
    "algebra": ("(x + 1)^2 = x^2 + 2x + 1", [("(x + 1)^2", "x^2 + 2x + 1")]),
}


@pytest.mark.parametrize(("thinking", "expected"), STEPS.values(), ids=STEPS)
def test_steps_are_found(thinking: str, expected: list[tuple[str, str]]) -> None:
    assert [step.texts for step in find_steps(thinking)] == expected


def test_a_step_names_its_place() -> None:
    thinking = "first\nso 17 * 3 = 51"
    (step,) = find_steps(thinking)
    assert thinking[step.at :] == "17 * 3 = 51"


@pytest.mark.parametrize(
    ("thinking", "verdict"),
    [
        ("17 * 20 = 340", "right"),
        ("17 * 20 = 350", "wrong"),
        ("(x + 1)^2 = x^2 + 2x + 1", "right"),
        ("2x + 1 = 5", "unknown"),
        (r"\frac{1}{2} + \frac{1}{3} = \frac{5}{6}", "right"),
        ("- 3 + 4 = 7", "right"),
        ("- 3 + 4 = 1", "right"),
        ("- 3 + 4 = 8", "wrong"),
        (r"\binom{5}{2} + 1 = 11", "unknown"),
        ("(3 + 4 = 7", "unknown"),
    ],
)
def test_a_step_is_right_wrong_or_not_to_be_judged(claims: Claims, thinking: str, verdict: str) -> None:
    (step,) = check_trace("?", thinking, "", claims)["steps"]
    assert step["verdict"] == verdict


@pytest.mark.parametrize(
    ("thinking", "answer", "agrees"),
    [
        ("so the answer is 0.5", r"\boxed{\frac{1}{2}}", True),
        ("so the answer is 391", "It is 392.", False),
        ("hm, 17 * 23", "It is 391.", None),
    ],
    ids=["the same number", "another", "nothing definite"],
)
def test_whether_the_answer_agrees_with_the_thinking(claims: Claims, thinking: str, answer: str, agrees: bool | None) -> None:
    assert check_trace("?", thinking, answer, claims)["agrees"] is agrees


def test_whether_the_language_is_the_question_s(claims: Claims) -> None:
    french = "Quelle est la capitale de la France et pourquoi ?"
    said = check_trace(
        french, "I think the user wants to know the capital of France.", "La capitale de la France est Paris.", claims
    )
    assert said["language"]["consistent"] is False


def whole(answer: str, index: int) -> Whole:
    ended = Ended(index=index, end=End.STOP, usage=Usage(prompt=1))
    return Whole(index=index, answer=answer, ended=ended)


@pytest.mark.parametrize(
    ("answers", "k", "decided", "claim", "n_agree"),
    [
        ([r"\boxed{1/2}", r"\boxed{0.5}"], 3, True, "1/2", 2),
        (["1", "2"], 3, False, "1", 1),
        (["1", "2", "2"], 5, False, "2", 2),
        (["1", "2", "2", "2"], 5, True, "2", 3),
        (["", "", "7"], 5, False, "7", 1),
        (["", ""], 2, False, "", 1),
    ],
    ids=[
        "two of three by meaning",
        "a tie: the first",
        "2 of 5 is open",
        "3 of 5 is not",
        "no answer does not lead",
        "none at all",
    ],
)
def test_a_ballot(claims: Claims, answers: list[str], k: int, decided: bool, claim: str, n_agree: int) -> None:
    ballot = Ballot(k, claims)
    for i, answer in enumerate(answers):
        ballot.add(whole(answer, i))
    assert (ballot.decided, ballot.result()["claim"], ballot.result()["n_agree"]) == (decided, claim, n_agree)


class Various(Scripted):
    """Each completion says the next of these; the last one goes on for long."""

    SAYS = (
        "<think>a</think>It is 391.",
        "<think>b</think>It is 392.",
        r"<think>c</think>\boxed{391}",
        "<think>" + "".join(map(str, range(900))),
    )

    def __init__(self) -> None:
        super().__init__(lambda _: self.SAYS[len(self.requests) - 1])
        self.n_said = 0
        self.say = self._next

    def _next(self, _prompt: str) -> str:
        self.n_said += 1
        return self.SAYS[(self.n_said - 1) % 4]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_vote_gives_one_answer_with_its_share_and_the_dissent_and_stops_what_cannot_change_it(stream: bool) -> None:
    engine = Various()
    with serving(engine) as url:
        body = {**BODY, "vote": {"k": 3}, "stream": stream, "stream_options": {"include_usage": True}}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
        data: dict[str, Any] = reply.json() if not stream else {}
        if stream:
            import json

            chunks = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
            text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
            data = {**chunks[-1], "choices": [{"message": {"content": text}}]}
    (note,) = data["magistral"]["notes"]
    assert data["choices"][0]["message"]["content"] == "It is 391."
    assert (note["kind"], note["data"]["n_agree"], note["data"]["n"]) == ("vote", 2, 3)
    assert [d["claim"] for d in note["data"]["dissent"]] == ["392"]


def test_a_vote_that_is_decided_cancels_the_rest() -> None:
    engine = Various()
    with serving(engine) as url:
        reply = httpx.post(f"{url}/v1/chat/completions", json={**BODY, "vote": {"k": 4}, "answer_reserve": 0}, timeout=30).json()
        assert len(engine.cancelled) == 0, "2 of 4 is open: the last could make it a tie"
        assert reply["magistral"]["notes"][-1]["data"]["n"] == 4
        engine.SAYS = ("It is 391.", "It is 391.", "It is 391.", engine.SAYS[3])
        engine.n_said, engine.step_s = 0, 0.01  # the long one takes seconds, so that it still runs when the others have decided
        reply = httpx.post(f"{url}/v1/chat/completions", json={**BODY, "vote": {"k": 4}, "answer_reserve": 0}, timeout=30).json()
        assert len(engine.cancelled) == 1
        assert reply["magistral"]["notes"][-1]["data"]["n_agree"] == 3


def test_checks_and_flash_are_said_in_the_reply() -> None:
    with serving(Scripted(lambda _: "<think>17 * 20 = 340, 17 * 3 = 52</think>It is 391.")) as url:
        reply = httpx.post(f"{url}/v1/messages", json={**BODY, "max_tokens": 300, "trace_checks": True}, timeout=30).json()
        (note,) = reply["magistral"]["notes"]
        assert [s["verdict"] for s in note["data"]["steps"]] == ["right", "wrong"]
    with serving(Scripted(lambda _: "It is 391.")) as url:
        reply = httpx.post(f"{url}/v1/chat/completions", json={**BODY, "flash": True}, timeout=30).json()
        assert [n["kind"] for n in reply["magistral"]["notes"]] == ["flash"]
        assert "reasoning" not in reply["choices"][0]["message"]

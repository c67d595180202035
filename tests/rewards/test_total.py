"""The whole reward, part by part, with its reasons."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from magistral.errors import UnknownName, VerifierFailed
from magistral.flow import Completion, Finish, Outcome, Problem
from magistral.recipe import RewardWeights
from magistral.rewards.total import Scorer
from magistral.text.trace import THINK_TOKENS, parse

WEIGHTS = RewardWeights(l_max=100, l_cache=20)
PROBLEM = Problem(id="sum-1", question="What do you get if you add twenty-three and four?", reference="27")
EN = "Twenty-three and four more, that makes twenty-seven."
FR = "Vingt-trois et quatre de plus, cela fait vingt-sept en tout."


def completion(text: str, *, n_tokens: int = 10, problem: Problem = PROBLEM) -> Completion:
    return Completion(
        problem=problem,
        group=0,
        index=0,
        seed=0,
        prompt_tokens=(1,),
        tokens=(2,) * n_tokens,
        logprobs=(0.0,) * n_tokens,
        versions=(0,) * n_tokens,
        text=text,
        finish=Finish.STOP,
    )


def test_a_completion_with_a_limit_of_its_own_is_paid_by_that(scorer: Scorer) -> None:
    written = completion(rf"<think>{EN}</think>\boxed{{27}}", n_tokens=110)
    assert scorer.score(written).reward.length == pytest.approx(-0.1)
    assert scorer.score(replace(written, l_max=120)).reward.length == pytest.approx(-0.05)  # half of the 20 before 120


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(WEIGHTS, deadline_s=1.0) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("text", "n_tokens", "parts"),
    [
        (rf"<think>{EN}</think>\boxed{{27}}", 10, (0.1, 0.9, 0.0, 0.1)),
        (rf"<think>{EN}</think>\boxed{{28}}", 10, (0.1, 0.0, 0.0, 0.1)),
        (rf"<think>{EN}</think>\boxed{{}}", 10, (0.1, 0.0, 0.0, 0.1)),
        (rf"<think>{EN}</think>\boxed{{27}}", 90, (0.1, 0.9, -0.05, 0.1)),
        (rf"<think>{EN}</think>\boxed{{28}}", 200, (0.1, 0.0, -0.1, 0.1)),
        (rf"<think>{FR}</think>\boxed{{27}}", 10, (0.1, 0.9, 0.0, 0.0)),
        (rf"<think>{FR}</think>\boxed{{28}}", 200, (0.1, 0.0, -0.1, 0.0)),
        (rf"{EN} \boxed{{27}}", 10, (0.0, 0.0, 0.0, 0.0)),
        (rf"<think>{EN}</think>27", 200, (0.0, 0.0, 0.0, 0.0)),
        ("", 0, (0.0, 0.0, 0.0, 0.0)),
        (rf"<think>{EN}</think>\boxed{{9^{{9^{{9^9}}}}}}", 10, (0.1, 0.0, 0.0, 0.1)),
    ],
    ids=[
        *("the most there is", "wrong", "empty box", "right and half too long", "wrong and too long", "strays into French"),
        *(
            "all but the format lost",
            "right without marks: nothing",
            "no box: nothing, the length is not looked at",
            "empty",
            "hangs",
        ),
    ],
)
def test_the_reward_by_part(scorer: Scorer, text: str, n_tokens: int, parts: tuple[float, ...]) -> None:
    reward = scorer.score(completion(text, n_tokens=n_tokens)).reward
    assert (reward.format, reward.correctness, reward.length, reward.language) == pytest.approx(parts)
    assert reward.total == pytest.approx(sum(parts))


def test_every_part_has_a_reason(scorer: Scorer) -> None:
    reasons = scorer.score(completion(rf"<think>{FR}</think>\boxed{{28}}", n_tokens=90)).reward.reasons
    assert reasons == (
        "format 0.1: one pair of marks, an answer after it",
        "correctness 0: 28 is not 27",
        "length -0.05: 90 tokens, free up to 80",
        "language 0: not all in en: problem en 0.90, thinking fr 0.98, summary too little text",
    )


def test_a_breach_of_format_is_said_and_nothing_else(scorer: Scorer) -> None:
    scored = scorer.score(completion(rf"<think>{EN}\boxed{{27}}"))
    assert scored.reward.reasons == ("format 0: no closing mark",)
    assert (scored.verdict.outcome, scored.verdict.stage) == (Outcome.UNPARSABLE, "format")
    assert scored.trace.fault == "no closing mark"


def test_weights_are_absolute() -> None:
    with Scorer(RewardWeights(format=0, correctness=2, language=3, length=1, l_max=10, l_cache=10)) as scorer:
        reward = scorer.score(completion(rf"<think>{EN}</think>\boxed{{27}}", n_tokens=5)).reward
    assert (reward.format, reward.correctness, reward.length, reward.language) == (0, 2, -0.5, 3)


def test_control_tokens_as_marks() -> None:
    with Scorer(WEIGHTS, lambda c: parse(c.text, THINK_TOKENS)) as scorer:
        assert scorer.score(completion(rf"[THINK]{EN}[/THINK]\boxed{{27}}")).reward.total == pytest.approx(1.1)
        assert scorer.score(completion(rf"<think>{EN}</think>\boxed{{27}}")).reward.total == 0


def test_a_reference_that_cannot_be_read_is_no_reward_of_0(scorer: Scorer) -> None:
    broken = Problem(id="broken", question="?", reference=r"\frac{x}{")
    with pytest.raises(VerifierFailed, match="broken"):
        scorer.score(completion(r"<think>a</think>\boxed{x}", problem=broken))


def test_a_kind_without_verifier_lists_those_there_are(scorer: Scorer) -> None:
    with pytest.raises(UnknownName, match="known: choice, code, math"):
        scorer.score(completion("<think>a</think>b", problem=Problem(id="p", question="?", reference="b", kind="proof")))


def test_an_integer_answer_is_scored_in_about_a_millisecond_without_a_process() -> None:
    with Scorer(WEIGHTS) as scorer:
        asked = completion(rf"<think>{EN}</think>So the answer is \boxed{{27}}.")
        scorer.score(asked)  # loads the classifier of languages
        start = time.perf_counter()
        for _ in range(50):
            scorer.score(asked)
        assert (time.perf_counter() - start) / 50 < 0.01  # ten times what it takes, since machines are shared
        assert not scorer._judges.pool.started


def test_scoring_does_not_import_torch() -> None:
    code = "import sys, magistral.rewards.total; sys.exit('torch' in sys.modules or 'sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

from __future__ import annotations

import pytest

from magistral.errors import VerifierFailed
from magistral.flow import Outcome, Verdict
from magistral.rewards.correctness import is_correct


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(Outcome.RIGHT, True), (Outcome.WRONG, False), (Outcome.UNPARSABLE, False), (Outcome.TIMED_OUT, False)],
)
def test_only_right_pays(outcome: Outcome, expected: bool) -> None:
    assert is_correct(Verdict(outcome=outcome, reason="because")) is expected


def test_a_verifier_s_own_failure_is_no_wrong_answer() -> None:
    with pytest.raises(VerifierFailed, match="half a formula"):
        is_correct(Verdict(outcome=Outcome.ERROR, reason="half a formula"))

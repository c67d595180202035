"""The pairs that graders are measured by, and the measuring."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from magistral.verifiers import bench
from magistral.verifiers.bench import Row, measure, reference_pairs, written_pairs
from magistral.verifiers.math import MathVerifier
from magistral.verifiers.pool import Pool

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def test_pairs_are_many_and_each_has_its_reason() -> None:
    rows = written_pairs()
    kinds = Counter(row.kind for row in rows)
    assert kinds["plain"] > 300
    assert kinds["adversarial"] > 200
    assert kinds["hostile"] > 40
    assert all(row.reason for row in rows)
    assert [pair for pair, n in Counter((r.answer, r.reference) for r in rows).items() if n > 1] == []


def test_our_verifier_makes_no_mistake_on_them() -> None:
    wrong = []
    with Pool(deadline_s=5.0) as pool:
        verifier = MathVerifier(pool)
        for row in written_pairs():
            if row.kind != "hostile":
                verdict = verifier.compare(row.answer, row.reference, question=row.question)
                if (verdict.outcome == "right") is not row.right or verdict.outcome == "error":
                    wrong.append((row.answer, row.reference, verdict.reason))
    assert wrong == []


@pytest.mark.slow
def test_our_verifier_accepts_nothing_hostile_and_every_reference_however_it_is_written() -> None:
    rows = [row for row in written_pairs() if row.kind == "hostile"] + reference_pairs(DATA)
    if not DATA.exists():
        pytest.skip(f"the benchmarks are not here: {DATA}")
    measured = measure(["magistral"], rows)["magistral"]
    assert {kind for kind in measured} == {"hostile", "math500", "aime24", "aime25", "gsm8k", "olympiadbench"}
    assert {(kind, m.n_hung, m.n_failed) for kind, m in measured.items()} == {(kind, 0, 0) for kind in measured}
    assert [row for m in measured.values() for row in m.false_positives + m.false_negatives] == []


def test_a_grader_that_hangs_is_killed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "HANG_S", 0.5)
    hangs = Row("((9^{999})^{999})^{999}", r"\sqrt 2", "", right=False, kind="hostile", reason="takes the whole deadline of 5 s")
    plain = Row("27", "27", "", right=True, kind="plain", reason="the same")
    measured = measure(["magistral"], [plain, hangs, plain])["magistral"]
    assert (measured["hostile"].n_hung, measured["plain"].n_hung) == (1, 0)
    assert measured["plain"].summary()["false_negatives"] == 0

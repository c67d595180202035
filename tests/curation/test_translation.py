"""A share is translated; what changed on the way is given up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from magistral.curation.candidate import Candidate
from magistral.curation.difficulty import Grader
from magistral.curation.translation import CheckAnswers, Translate, drift, target_of
from magistral.engines.scripted import ScriptedEngine
from magistral.text.tokens import byte_tokenizer
from magistral.verifiers.judges import Judges
from tests.curation.planted import asker

ENGLISH = "A farmer has 12 sheep and buys $3x$ more of them. How many sheep does the farmer have now?"
FRENCH = "Un fermier possède 12 moutons et en achète encore $3x$. Combien de moutons le fermier possède-t-il maintenant ?"


@pytest.mark.parametrize(
    ("translation", "fault"),
    [
        (FRENCH, ""),
        (FRENCH.replace("$3x$", "$3 x$"), ""),
        (FRENCH.replace("$3x$", "$4x$"), "other formulas"),
        (FRENCH.replace("12", "21"), "other numbers"),
        (FRENCH + " La réponse est 15.", "other numbers"),
        (ENGLISH, "it is in en"),
        ("", "nothing came"),
    ],
    ids=["right", "spaces in a formula", "formula changed", "number changed", "solved on the way", "not translated", "nothing"],
)
def test_drift(translation: str, fault: str) -> None:
    assert drift(ENGLISH, translation, "fr") == fault


def test_the_share_and_the_languages_are_those_asked_for() -> None:
    candidates = [Candidate(id=str(i), question="q") for i in range(6000)]
    targets = Counter(target_of(c, 0.1) for c in candidates)
    assert 540 <= 6000 - targets[None] <= 660
    assert set(targets) == {None, "fr", "es", "it", "de", "zh", "ru"}
    assert min(targets.values()) > 70
    assert target_of(Candidate(id="1", question="q", language="de"), 1.0) is None
    assert target_of(Candidate(id="1", question="q", kind="code"), 1.0) is None


def test_a_translation_whose_answer_changed_gives_way_to_the_original(tmp_path: Path) -> None:
    names = [str(i) for i in range(2000) if target_of(Candidate(id=str(i), question=""), 1.0) == "fr"][:2]
    both = [Candidate(id=names[0], question=ENGLISH, reference="5"), Candidate(id=names[1], question=ENGLISH, reference="6")]
    translator = ScriptedEngine(lambda prompt, seed: FRENCH, byte_tokenizer())
    solver = ScriptedEngine(lambda prompt, seed: "\\boxed{5}" if prompt == FRENCH else "", byte_tokenizer())
    translated = list(Translate(lambda: asker(translator), tmp_path / "t", share=1.0)(iter(both)))
    assert [(c.id, c.question, c.language) for c in translated] == [(f"{name}-fr", FRENCH, "fr") for name in names]
    with Judges() as judges:
        checked = list(CheckAnswers(lambda: Grader(asker(solver), judges, n=2), tmp_path / "c")(iter(translated)))
    assert [(c.id, c.question, c.language) for c in checked] == [(f"{names[0]}-fr", FRENCH, "fr"), (names[1], ENGLISH, "en")]

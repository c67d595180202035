"""The language of prose, whatever formulas and code stand in it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from magistral.verifiers.language import Said, judge, language_of, prose

MGSM = Path(__file__).parents[2] / ".." / "shared" / "data" / "mgsm"


FRENCH = "D'abord nous additionnons les deux nombres, puis nous divisons par trois. "
CODE = "".join(f"def step_{i}(numbers, total):\n    return [total + n * {i} for n in numbers]\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First we add the two numbers, then we divide by three.", "en"),
        ("D'abord nous additionnons les deux nombres, puis nous divisons par trois.", "fr"),
        ("Primero sumamos los dos números y después dividimos entre tres.", "es"),
        ("Zuerst addieren wir die beiden Zahlen, dann teilen wir durch drei.", "de"),
        ("Per prima cosa sommiamo i due numeri e poi dividiamo per tre.", "it"),
        ("أولاً نجمع العددين ثم نقسم الناتج على ثلاثة للحصول على الجواب.", "ar"),
        ("Сначала сложим два числа, затем разделим на три.", "ru"),
        ("首先把两个数相加,然后除以三。", "zh"),
        ("まず二つの数を足して、それから三で割ります。", "ja"),
        ("", None),
        ("\\boxed{27}", None),
        ("The answer is \\boxed{27}.", None),
        ("答案是三。", None),
        ("Also ist das Ergebnis der Rechnung gleich $x = \\text{the sum of all of the even numbers}$, wie oben gezeigt.", "de"),
        ("Ainsi voici le programme demandé :\n```python\nfor number in range(10):\n    print('the number', number)\n```", "fr"),
        ("\\[ the sum of all \\] \\( of these numbers \\) `for number in numbers`", None),
        ("We add the numbers, \\[ x = 1 and never close this", "en"),
        (f"```\n{FRENCH}", "fr"),
        (f"\\[ {FRENCH}", "fr"),
        (f"\\begin{{align}} {FRENCH}", "fr"),
        (f"\\text{{{FRENCH}}}", "fr"),
        (f"\\[ x = \\text{{{FRENCH}}} \\]", "fr"),
        (f"I think. ```\n{FRENCH * 4}\n```", "fr"),
        (f"```python\n{CODE}\n```", None),
        ("FIRST WE ADD THE TWO NUMBERS, THEN WE DIVIDE BY THREE.", "en"),
        ("In the beginning we add. " + "Danach teilen wir die Summe durch drei und erhalten so das Ergebnis. " * 4, "de"),
    ],
    ids=[
        *(
            "English",
            "French",
            "Spanish",
            "German",
            "Italian",
            "Arabic",
            "Russian",
            "Chinese",
            "Japanese is not taken for Chinese",
        ),
        *("empty", "a box", "too few letters", "too few ideographs", "formula out", "code out", "nothing but formulas and code"),
        *("an open formula", "an open fence", "an open display", "an open environment", "words as text", "words in a formula"),
        *("much prose in a fence", "a program alone", "capitals", "the whole text counts, not its beginning"),
    ],
)
def test_the_language_of_a_text(text: str, expected: str | None) -> None:
    assert language_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Сначала сложим два числа abcd, затем разделим.", Said("ru", 33 / 37, "script")),
        ("أولاً نجمع العددين ثم نقسم الناتج على ثلاثة", Said("ar", 1.0, "script")),
        ("首先把两个数 ab 相加,然后除以三。", Said("zh", 12 / 14, "script")),
        ("まず二つの数を足して、それから三で割ります。", Said("ja", 1.0, "script")),
        ("Ab 12", Said(None, 0.0, "too little text")),
    ],
    ids=["Russian", "Arabic", "Chinese", "Japanese", "too little"],
)
def test_a_script_decides_with_the_share_of_letters_that_it_has(text: str, expected: Said) -> None:
    said = judge(text)
    assert (said.code, said.by) == (expected.code, expected.by)
    assert said.confidence == pytest.approx(expected.confidence, abs=0.05)


def test_the_classifier_is_surer_of_one_language_than_of_two() -> None:
    french = "D'abord nous additionnons les deux nombres, puis nous divisons par trois."
    pure, mixed = judge(french), judge(f"{french} And then we write down what is left, and we are done with it.")
    assert (pure.code, pure.by) == ("fr", "classifier")
    assert mixed.confidence < pure.confidence <= 1.0


def test_a_language_that_the_problem_names_is_among_the_choices() -> None:
    text = "Primeiro somamos os dois números e depois dividimos o resultado por três, não é?"
    assert (language_of(text), language_of(text, also="pt")) == (None, "pt")  # less than half sure of Spanish


def test_prose_is_what_is_left() -> None:
    assert prose("We  get $x$ and \\frac{1}{2}\nso `y`.") == "We get and so ."


@pytest.mark.parametrize("loop", ["\\[ ", "\\( ", "$ ", "$$", "```", "`", "\\begin{align}", "\\a{", "\\text{", "\\[\n ", "a"])
def test_a_loop_of_openings_takes_linear_time(loop: str) -> None:
    start = time.process_time()
    language_of(loop * (200_000 // len(loop)))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("code", ["en", "fr", "es", "de", "ru", "zh"])
def test_the_questions_of_mgsm_are_told_apart(code: str) -> None:
    path = MGSM / f"mgsm_{code}.tsv"
    if not path.exists():
        pytest.skip(f"MGSM is not here: {path}")
    found = [language_of(line.rpartition("\t")[0]) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(found) == 250
    assert found.count(code) >= 248

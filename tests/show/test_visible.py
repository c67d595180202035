"""No character of a completion acts on a terminal."""

from __future__ import annotations

import pytest

from magistral.show.visible import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain ~", "plain ~"),
        ("a\n\tb", "a\n\tb"),
        ("\x1b[31mred", "␛[31mred"),
        ("a\x00b", "a␀b"),
        ("over\rwritten", "over␍written"),
        ("back\x08", "back␈"),
        ("\x7f", "␡"),
        ("\x9b31m", "\ufffd31m"),
        ("\u202etxt.exe", "\ufffdtxt.exe"),
        ("\ud800", "\ufffd"),
        ("é 🎉 你好 אב", "é 🎉 你好 אב"),
    ],
    ids=[
        "empty", "ascii", "newline and tab stay", "escape", "NUL", "carriage return", "backspace", "delete",
        "one-byte CSI", "right-to-left override", "half a surrogate pair", "every script stays",
    ],
)  # fmt: skip
def test_what_acts_becomes_a_picture_of_itself(text: str, expected: str) -> None:
    assert visible(text) == expected

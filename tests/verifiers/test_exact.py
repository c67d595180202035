"""Numbers: read exactly, compared exactly, rounded only where the reference is."""

from __future__ import annotations

from fractions import Fraction

import pytest

from magistral.verifiers.exact import equal_numbers, read_number
from magistral.verifiers.spelling import normalise


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("27", Fraction(27)),
        ("\u22123", Fraction(-3)),
        ("+7", Fraction(7)),
        ("007", Fraction(7)),
        ("\uff17", Fraction(7)),
        (".5", Fraction(1, 2)),
        ("7.", Fraction(7)),
        ("1,234,567", Fraction(1234567)),
        (r"1\,234\,567", Fraction(1234567)),
        ("1{,}234.5", Fraction(2469, 2)),
        ("58 500", Fraction(58500)),
        (r"$18.90$", Fraction(189, 10)),
        (r"\frac14", Fraction(1, 4)),
        (r"\dfrac{-1}{4}", Fraction(-1, 4)),
        (r"-\tfrac 59", Fraction(-5, 9)),
        ("-7/3", Fraction(-7, 3)),
        ("3 1/2", Fraction(7, 2)),
        (r"-1\frac{4}{5}", Fraction(-9, 5)),
        ("½", Fraction(1, 2)),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"1.2\overline{34}", Fraction(611, 495)),
        ("6.02e23", Fraction(602 * 10**21)),
        (r"6.02 \times 10^{-2}", Fraction(602, 10000)),
        ("10^{18}", Fraction(10**18)),
    ],
)
def test_a_number_is_read_exactly(text: str, value: Fraction) -> None:
    number = read_number(normalise(text))
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,23", "1 2", "1/0", r"\frac{1}{0}", "1.2.3", "--1", "1e9999", "5 or 6", "2^{10}", "9" * 5000, "1.5 1/2", "50%%"],
)
def test_what_is_no_number_is_not_read_as_one(text: str) -> None:
    assert read_number(normalise(text)) is None


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        ("28801", "28800", False),
        ("0.5", "1/2", True),
        ("0.333333", "1/3", False),
        ("1/3", "0.333", True),
        ("1/3", "0.33", False),
        ("3.14159", "3.14", True),
        ("3.2", "3.14", False),
        ("3.145", "3.14", True),
        ("3.1451", "3.14", False),
        ("0.54", "0.5", False),
        ("100", "100.0", True),
        ("100.04", "100.0", True),
        ("0.0", "1/100000000", False),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("0.5", "50%", True),
        ("50", "50%", True),
        ("0.5%", "50%", False),
        ("20%", "0.3", False),
    ],
    ids=[
        "integers are exact",
        "a decimal can be exact",
        "an exact reference is met by no rounded answer",
        "a rounded reference is met by the exact answer",
        "two digits are not rounded",
        "more digits than the reference",
        "fewer digits than the reference",
        "half a unit of the last digit",
        "over half a unit",
        "one digit is not rounded",
        "trailing zero",
        "trailing zero, rounded",
        "tiny is not nothing",
        "percentage of a count",
        "percentage of a share",
        "share of a percentage",
        "count of a percentage",
        "two percentages",
        "another share",
    ],
)
def test_numbers_compare_exactly_unless_the_reference_is_rounded(answer: str, reference: str, equal: bool) -> None:
    a, r = read_number(normalise(answer)), read_number(normalise(reference))
    assert a is not None
    assert r is not None
    assert equal_numbers(a, r) is equal

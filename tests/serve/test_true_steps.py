"""No true statement is marked wrong, however it is told; what is wrong is found; and nothing takes long."""

# ruff: noqa: RUF001 - it is about characters that look alike

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral.serve.checks import check_steps
from magistral.serve.claims import Claims


class Nobody(Claims):
    """Compares nothing: what is said comes of arithmetic alone."""

    def same(self, one: str, other: str) -> bool | None:
        return None


def verdicts(thinking: str) -> list[str]:
    return [step.verdict for step in check_steps(thinking, Nobody())]


# fmt: off
TOLD = (
    "First, compute the area: 12 * 8 = 96 square inches.",
    "She pays $45 - $12.50 = $32.50 after the discount.",
    "There are 4 * 6 = 24 eggs, that is 24 / 12 = 2 dozen.",
    "So 30% of 250 = 75, hence 250 - 75 = 175.",
    "The average is (3 + 5 + 10) / 3 = 6.",
    "Half of 18 + 4 = 13, since half of 18 is 9.",
    "The train covers 80 km/h * 1.5 h = 120 km.",
    "3/8 + 1/8 = 4/8 = 1/2, as expected.",
    "The hypotenuse is sqrt(3^2 + 4^2) = sqrt(25) = 5.",
    "By the formula, n(n+1)/2 = 10 * 11 / 2 = 55.",
    "10 choose 3 = 10!/(3! * 7!) = 120.",
    "Rounding up, 100 / 8 = 13 buses.",
    "1/7 ≈ 0.143 and 1/7 = 0.142857...",
    "Wait, 7 * 8 = 56, not 54; let me redo: 56 + 4 = 60.",
    "The sum of the digits of 345 = 3 + 4 + 5 = 12.",
    "Zuerst rechnen wir 12 : 4 + 3 = 6.",
    "Die Wurzel aus 49 + 1 = 8, also gilt das.",
    "Der Preis beträgt 2,50 € + 1,75 € = 4,25 €.",
    "Insgesamt sind das 1.250 + 750 = 2.000 Euro.",
    "Ein Drittel von 27 + 1 = 10.",
    "20 % von 150 = 30, also 150 - 30 = 120.",
    "Die Geschwindigkeit ist 90 km : 1,5 h = 60 km/h.",
    "Es gilt 7 mal 8 = 56 und 56 geteilt durch 7 = 8.",
    "17 : 5 = 3 Rest 2, denn 3 * 5 + 2 = 17.",
    "Das Quadrat von 3 + 1 = 10, weil 9 + 1 = 10.",
    "Der Betrag von -3 + 5 = 8.",
    "Probe: 2^10 = 1024 ≈ 10^3.",
    "Also 3 hoch 4 = 81 und 81 - 1 = 80.",
    "2 Stunden + 30 Minuten = 150 Minuten.",
    "D'abord, 15 × 4 = 60, puis 60 + 2 = 62.",
    "La racine carrée de 81 + 1 = 10.",
    "Le prix est de 3,20 € × 5 = 16 €.",
    "Donc 20 % de 80 = 16 et 80 - 16 = 64.",
    "La moitié de 30 + 5 = 20.",
    "17 divisé par 5 = 3 reste 2.",
    "On a 1 500 + 500 = 2 000 habitants.",
    "Le double de 6 + 1 = 13, d'où le résultat.",
    "La vitesse est 100 km / 2 h = 50 km/h.",
    "Le PGCD de 12 et 18 + 1 = 7.",
    "Ainsi 3 fois 4 + 5 = 17.",
    "Trois quarts de 20 + 1 = 16.",
    "所以3+4=7，7×2=14。",
    "16的平方根+2=6。",
    "根号16+2=6，因此答案是6。",
    "总价是3×5+2=17元。",
    "80的50%=40，80-40=40。",
    "3个苹果+4个苹果=7个苹果。",
    "速度为60公里/2小时=30公里/小时。",
    "17÷5=3余2，所以17=5×3+2。",
    "5的阶乘+1=121。",
    "一共有2×5000=1万人。",
    "最后，（3+4）×2=14。",
    "Primero, 12 * 3 = 36 y luego 36 + 4 = 40.",
    "La raíz cuadrada de 64 + 1 = 9.",
    "El 25 % de 200 = 50, entonces 200 - 50 = 150.",
    "El precio es 2,5 € por 4 = 10 €.",
    "El doble de 7 + 1 = 15.",
    "17 entre 5 = 3 resto 2.",
    "La mitad de 40 - 5 = 15.",
    "Son 1.000 + 2.500 = 3.500 pesos.",
    "El factorial de 4 + 1 = 25.",
    "Tres veces 4 + 2 = 14.",
    "El mcm de 4 y 6 + 1 = 13.",
)
"""What a model would say: all true."""

ODD = (
    "The square root of 16 plus 2 = 6.",
    "sqrt 16 + 2 = 6",
    "√16 + 2 = 6",
    "∛27 + 1 = 4",
    "log(100) + 1 = 3",
    "log_2 8 + 1 = 4",
    "gcd(12, 8) + 1 = 5",
    "max(3, 4) + 1 = 5",
    "lcm of 4 and 6 + 1 = 13",
    "The sum of 3 and 4 + 2 = 9",
    "half of 10 + 2 = 7",
    "twice 3 + 4 = 10",
    "f(2) + 3 = 7",
    "sin(30°) + 1 = 1.5",
    "C(5, 2) + 1 = 11",
    "⌊3.7⌋ + 1 = 4",
    "17 % 5 + 1 = 3",
    "100 + 10% = 110",
    "20% of 50 = 10, so 50 - 10 = 40",
    "2 1/2 + 1 1/2 = 4",
    "1 and 1/2 + 1/2 = 2",
    "3 hours and 20 + 10 = 30 minutes",
    "In step 3 100 + 5 = 105",
    "3:15 + 1:30 = 4:45",
    "11 + 1 = 100 in binary",
    "Modulo 7 we have 3 + 5 = 1",
    "9 + 5 = 2 on the clock",
    "0.999... = 1",
    "1 + 2 + ... + 10 = 55",
    "5 - 3 != 1",
    "3 + 4 >= 2 + 1 = 3",
    "x = 3, so x + 4 = 7",
    "Let a * b = a + 2b. Then 3 * 4 = 11.",
    "2 * 500 = 1 thousand",
    "6 * 2 = 1 dozen",
    "30 + 30 = 1 hour",
    "5 * 20 cents = 1 dollar",
    "5 cm * 4 cm = 20 cm²",
    "5 * 4 = 20 square metres",
    "120 km / 2 h = 60 km/h",
    "1.5 h * 60 = 90 min",
    "7 / 2 = 3.5 ≈ 4",
    "100/3 = 33",
    "2/3 = 0.66",
    "2/3 = 0.67",
    "π * 5^2 = 78.54",
    "π * 5² = 25π",
    "sqrt(2) = 1.414",
    "-2^2 = -4",
    "(-2)^2 = 4",
    "10^-3 = 0.001",
    "3 + 4 = 7! Great",
    "6/2(1+2) = 9",
    "6/2(1+2) = 1",
    "2^3^2 = 512",
    "1,234 + 1 = 1,235",
    "1.234 + 1 = 1.235",
    "1 234 + 1 = 1 235",
    "12,34,567 + 1 = 12,34,568",
    "Rest von 17 / 5 = 2",
    "17 div 5 = 3",
    "17 // 5 = 3",
    '"3" + "4" = "34"',
    "3 choose 2 + 1 = 4",
    "|−3| + |4| = 7",
    "2 + 3 = 5 - that is right",
    "12 : 3 + 1 = 5",
    "Rechne 12: 3 + 1 = 5",
    "1e3 + 1 = 1001",
    "0x1F + 1 = 32",
    "2x + 3x = 5x",
    "A ∪ B: 3 + 4 - 2 = 5",
    "3 dozen + 4 = 40",
    "the determinant is 1*4 - 2*3 = -2",
    "vector (1, 2) + (3, 4) = (4, 6)",
    "[1, 2] + [3, 4] = [4, 6]",
    "P(A) = 1/6 + 1/6 = 1/3",
    "Total = $3.50 + $1.50 = $5",
    "Cost: €3,50 + €1,50 = €5",
    "10^3 = 1000 = 1k",
    "3 + 4 = 7 (mod 5) = 2",
    "2^10 = 4 * 256 = 4 mod 10",
    r"5 + 3 \times 2 = 11",
    r"\frac{3}{4} \times 100\% = 75\%",
    r"\sqrt{16} + 2 = 6",
    r"\sqrt[3]{27} + 1 = 4",
    r"\binom{5}{2} + 1 = 11",
    r"\log_{2} 8 + 1 = 4",
    r"2\frac{1}{2} + \frac{1}{2} = 3",
    "2^{10} = 1024",
    r"\left(\frac{1}{2}\right)^2 = \frac{1}{4}",
    r"5\,\text{cm} \times 2 = 10\,\text{cm}",
    r"\text{speed} = 60 \text{ km/h} \times 2 = 120",
    r"3 + 4 &= 7 \\",
    "$3^2 + 4^2 = 25 = 5^2$",
    "30° + 60° = 90°",
    "20 °C + 5 °C = 25 °C",
    "3² + 4² = 5²",
    "24 / 2 / 3 = 4",
    "8 - 3 - 2 = 3",
    "3 to 4 + 1 = 5",
    "from 10 - 2 = 5",
    "10 percent of 50 + 5 = 10",
    "two plus 3 + 4 = 9",
    "three squared + 1 = 10",
    "5 squared + 1 = 26",
    "ln e^2 + 1 = 3",
    "e^0 + 1 = 2",
    "i^2 + 1 = 0",
    "5P2 + 1 = 21",
    "3 + 4 = 7 = VII",
    "1st + 2 = 3",
    "5 more than 3 * 2 = 11",
    "60 = 1 minute",
    "2 * 12 = 2 dozen",
    "3 + 4 = seven",
    "3 + 4 = 6 + 1 apples",
    "abs(3 - 5) + 1 = 3",
    "factorial(4) + 1 = 25",
    "Σ i = 1 + 2 + 3 = 6",
    "So ∑_{i=1}^{3} i + 1 = 7",
    "2+2=4,3+3=6",
    "1,5+1,5=3,0",
    "So the area = 3 m * 4 m = 12 m^2",
    "1 km = 1000 m",
    "3 km = 3000",
    "a = 5 m/s^2 * 2 s = 10 m/s",
    "10 N * 2 m = 20 J",
    "3 kg * 10 m/s^2 = 30 N",
    "1 l = 1000 ml",
    "100 g = 0.1 kg",
    '5\'2" + 3 = 65',
    "2/3 of 9 + 1 = 7",
    "3/4 cup + 1/4 cup = 1 cup",
    "25% * 80 = 20",
    "80 * 25% = 20",
    "1/4 = 25%",
    "25 = 25% of 100",
    "7 = 3 + 4",
    "3 + 4 = 7, 8 + 1 = 9",
    "Then 5 - 3 = 2 - 0",
    "2 * 3 = 6 => 6 + 1 = 7",
    "3 · 4 = 12",
    "3 · 4 + 1 = 13",
    "3.4 + 1 = 4.4",
    "7 mod 3 + 1 = 2",
    "-7 mod 3 = 2",
    "5 choose 2 = 10",
    "GCD = 12 - 8 = 4",
    "f'(3) = 2 * 3 = 6",
    "x_1 + 3 = 4",
    "x1 + 3 = 4",
    "10% + 5% = 15%",
    "4 quarters * 25 = 100",
    "3! = 3 * 2 * 1 = 6",
    "5! / 3! = 20",
    "5!/(3! * 2!) = 10",
    "2 + 3 = 5!",
    "4! = 24!",
    "0! = 1",
    "3!! = 3",
    "(5 choose 2) * 2 = 20",
    "10 - 3 * 2 = 4; 4 / 2 = 2",
    "3 + 4 is 7 and 7 * 2 = 14",
    "1 / 0 = inf",
    "lim = 1 + 0 = 1",
    "1 000 000 / 1 000 = 1 000",
    "The cube root of 27 + 1 = 4",
    "cos 0 + 1 = 2",
    "A quarter of 8 + 2 = 4",
    "Increase 50 by 10% = 55",
    "50 + 10% of 50 = 55",
    "200 less 10% = 180",
    "price after 20% off: 50 - 20% = 40",
    "3 dozen eggs = 36 eggs",
    "1 dozen = 12",
    "5 ft 6 in = 66 in",
    "1 hour 30 min = 90 minutes",
    "3.5k + 500 = 4000",
    "$1.5 million + $500,000 = $2 million",
    "2 million + 3 million = 5 million",
    "There are C(4,2) = 6 ways and 6 * 2 = 12",
    "Therefore, x = (-b ± √(b² - 4ac)) / 2a = (4 ± 2) / 2 = 3 or 1",
    "x = (4 + 2)/2 = 3",
    "a^2 + b^2 = 9 + 16 = 25",
    "Let x = 2: 3x + 1 = 7",
    "With x = 2, 3(2) + 1 = 7",
    "f(3) = 2(3) + 1 = 7",
    "|x| = 3, |-3| = 3",
    "∫ 2x dx = x^2 = 9 - 0 = 9",
    "Σ_{k=1}^{4} k = 4 * 5 / 2 = 10",
    "P = 1 - (5/6)^2 = 11/36 ≈ 0.306 = 30.6%",
    "0.25 = 25 %",
    "12.5% of 80 = 10",
    "The time is 9:30 + 45 min = 10:15",
    "From 8 am + 5 hours = 1 pm",
    "10:00 + 3 = 13:00",
    "Year 2024 - 1990 = 34 years",
    "- 3 apples: 3 * 2 = 6",
    "Round 7 / 2 = 4",
    "floor(7 / 2) = 3",
    "⌈7/2⌉ = 4",
    "7 div 2 = 3 and 7 mod 2 = 1",
    "8 = 2^3, 16 = 2^4",
    "10! = 3,628,800",
    "10! = 3.628.800",
    "10! = 3 628 800",
    "1,000,000 / 4 = 250,000",
    "1.000.000 / 4 = 250.000",
    "3.000,50 + 1 = 3.001,50",
    "2 × 10^3 + 5 = 2005",
    "6.02 × 10^23 × 2 = 1.204 × 10^24",
    "6.02e23 * 2 = 1.204e24",
    "1/2 + 1/3 = 5/6 = 0.8333",
    "= 3 + 4 = 7",
    "= 12",
    "3 + 4 = 7 = 10 - 3",
    "3 + 4 == 7",
    "print(3 + 4 == 7)",
    "assert 3 ** 2 == 9",
    "x += 3 + 4 = 7",
    '"a" * 3 = "aaa"',
    "1 + 1 = 10 (binary)",
    "FF + 1 = 100 in hex",
    "In base 5: 3 + 4 = 12",
    "0b11 + 1 = 4",
    "2 m = 2 * 100 cm = 200 cm",
    "0.5 l + 250 ml = 750 ml",
    "100 °C = 212 °F",
    "32 °F + 0 = 0 °C",
    "5 km² = 5 * 1000000 m²",
    "3 m³ = 3000 l",
    "72 km/h = 20 m/s",
    "72 km/h = 72 / 3.6 = 20 m/s",
    "9.8 m/s² * 2 s = 19.6 m/s",
    "v = d/t = 100 m / 10 s = 10 m/s",
    "F = ma = 2 kg * 3 m/s² = 6 N",
    "2 kWh * 3 = 6 kWh",
    "5 € * 3 = 15 €",
    "3 persons * 5 €/person = 15 €",
    "3 days * 8 hours/day = 24 hours",
    "5 boxes * 12 apples/box = 60 apples",
    "60 miles per hour * 2 hours = 120 miles",
    "2 weeks = 14 days",
    "1 year = 365 days",
    "3 months = 3 * 30 = 90 days",
    "45 min = 45/60 = 0.75 h",
    "0.75 h * 60 = 45 min",
    "150 cm / 100 = 1.5 m",
    "4 quarters = $1",
    "100 cents = 1 dollar",
    "50% = 1/2 = 0.5",
    "80% of 60% = 48%",
    "100% - 35% = 65%",
    "1 - 35% = 65%",
    "150% of 20 = 30",
    "30/120 = 0.25 = 25%",
    "45 / 60 = 75%",
    "(45 / 60) * 100 = 75",
    "(45 / 60) * 100% = 75%",
    "20% increase of 50 = 60",
    "increase: 50 * 1.2 = 60",
    "√2 ≈ 1.41, √2 * √2 = 2",
    "√(2) · √(8) = 4",
    "2√3 = √12",
    "(√5)^2 = 5",
    "8^(1/3) = 2",
    "27^{2/3} = 9",
    "2^(-1) = 0.5",
    "10^{-2} = 0.01",
    "e ≈ 2.718",
    "π/4 ≈ 0.785",
    "2π ≈ 6.28",
    "π r^2 = 3.14 * 4 = 12.56",
    "π(2)^2 = 4π",
    "(-3)(-4) = 12",
    "(2)(3) = 6",
    "(2) 3 + 4 = 7",
    "2 · (3 + 4) = 14",
    "2(3 + 4) = 14",
    "[(2 + 3) * 4] = 20",
    "{1 + [2 * (3 + 4)]} = 15",
    "-3^2 = -9",
    "−3 − 4 = −7",
    "– 3 + 4 = 1",
    "5 – 3 = 2",
    "5 — 3 = 2",
    "5 − 3 = 2",
    "3 * -4 = -12",
    "3 + -4 = -1",
    "1 - (-1) = 2",
    "+3 + 4 = 7",
    "5 3/4 - 2 1/4 = 3 1/2",
    "1½ + ½ = 2",
    "½ + ½ = 1",
    "¾ * 4 = 3",
    "1/2 of 3/4 = 3/8",
    "one half of 10 + 5 = 10",
    "two-thirds of 9 + 1 = 7",
    "ten minus 3 + 1 = 8",
    "10 less than 20 + 5 = 15",
    "5 fewer than 12 - 2 = 5",
    "three 4s + 1 = 13",
    "six 5 + 1 = 31",
    "area of square with side 4 + 1 = 25",
    "die Hälfte von 10 + 1 = 6",
    "dreimal 4 + 1 = 13",
    "drei mal 4 + 1 = 13",
    "minus 3 + 5 = 2",
    "negative 3 + 5 = 2",
    "neun plus 3 + 1 = 13",
    "deux fois 3 + 1 = 7",
    "dos por 3 + 1 = 7",
    "dos veces 3 + 1 = 7",
    "tre per 4 + 1 = 13",
    "三乘以4+1=13",
    "三倍的4+1=13",
    "4的3倍+1=13",
    "3的2次方+1=10",
    "二分之一×4=2",
    "4!-2! = 22",
    "5 over 3 = 10",
    "5C3 = 10",
    "^5C_3 + 1 = 11",
    "n! = 5! = 120",
    "LHS = 3 + 4 = 7 = RHS",
    "3 + 4 = 7 ✓",
    "✓ 3 + 4 = 7",
    "✗ 3 + 4 = 8? No: 3 + 4 = 7",
    "3 + 4 = ? 7",
    "3 + __ = 7",
    "3 + x = 7 → x = 7 - 3 = 4",
    "12 = 3 × 4 = 2 × 6",
    "1 + 2 + 3 + … + 10 = 55",
    "1+2+...+10 = 10*11/2 = 55",
    "3, 6, 9: 9 - 6 = 3",
    "(a) 3 + 4 = 7 (b) 4 + 4 = 8",
    "a) 3 + 4 = 7",
    "iv. 3 + 4 = 7",
    "1) 3 + 4 = 7; 2) 4 + 4 = 8",
    "1. 3 + 4 = 7 2. 4 + 4 = 8",
    "The 2 + 3 = 5 apples",
    "No. 5 + 3 = 8",
    "p. 12 + 3 = 15",
    "Eq. 3: 4 + 5 = 9",
    "(3) 4 + 5 = 9",
    "Section 2.3 4 + 5 = 9",
    "v2 3 + 4 = 7",
    "3 + 4 = 7 3 + 5 = 8",
    "3+4=7 and 8=2^3",
    "12 is 3 * 4 = 12",
    "ratio 3:4 = 6:8",
    "3 : 4 = 0.75",
    "1 : 3 = 0,33",
    "1:3 = 0,333...",
    "0,5 = 1/2",
    "1,5 * 2 = 3,0",
    "1.5,2.5: 1.5 + 2.5 = 4",
    "f(1,2) + 3 = 6",
    "(1,2) + (3,4) = (4,6)",
    "5, 6, 7 + 8 = 15",
    "7 + 8 = 15, 16, 17",
    "3 + 4 = 7,8 + 1 = 9",
    "average of 3, 5 + 1 = 5",
    "max of 3, 4 + 1 = 5",
    "the difference between 10 and 4 + 1 = 7",
    "the LCM of 3 and 5, 15 + 1 = 16",
    "gcd = 6, so 12/6 + 18/6 = 5",
    "3 and 4 make 7 and 7 + 1 = 8",
    "between 3 and 5 + 2 = 7",
    "2^3 = 2*2*2 = 8",
    "3^2 + 4^2 = 5^2",
    "3**2 + 4**2 = 5**2",
    "2^3! = 64",
    "2^2^2 = 16",
    "2^2x = 4^x",
    "2x = 10, x = 10/2 = 5",
    "2 x = 6",
    "2 x 3 x 4 = 24",
    "3x4 = 12",
    "3X4 = 12",
    "3 x (4 + 1) = 15",
    "a x b = 12",
    "i = √-1",
    "log 100 = 2",
    "ln(e) + 1 = 2",
    "det = 2 * 3 - 1 * 4 = 2",
    "A = [[1,2],[3,4]], 1*4 - 2*3 = -2",
    "2 mod 5 = 7 mod 5",
    "-1 ≡ 4 (mod 5)",
    "2^4 ≡ 1 mod 15",
    "7 ≡ 1 (mod 3), so 7^2 ≡ 1 (mod 3)",
    "3 * 5 = 15 ≡ 1 (mod 7)",
    "3 * 5 = 1 in Z_7",
    "3^6 = 729 = 1 mod 7",
    "so mod 10: 7 * 3 = 1",
)
"""True as somebody meant it."""

WRONG = (
    "17 * 20 = 350",
    "so 17 * 20 = 340 and 17 * 3 = 52.",
    "sqrt(16) + 2 = 7",
    "17 / 5 = 3 remainder 1",
    "3^4 = 2 mod 5",
    "3^4 ≡ 2 (mod 5)",
    "50% of 80 = 45",
    "3 times 4 = 13",
    "5! + 1 = 120",
    "|3 - 5| + 1 = 4",
    "1,5 + 1,5 = 4",
    "1,234 + 1 = 1,236",
    "3 * 5 cm = 16 cm",
    "60 km/h * 2 h = 130 km",
    "1.5 km + 500 m = 3 km",
    "2 h 30 min = 140 min",
    "1/3 = 0.34",
    "0.1 + 0.2 = 0.4",
    "2 + 3 + 4 = 5 + 4 = 8",
    r"\(340 + 51 = 392\)",
    r"\frac{1}{2} + \frac{1}{3} = \frac{2}{5}",
    "3 apples + 4 apples = 8 apples",
    "3 * 4 = 13 apples",
    "Step 1: 17 * 3 = 52",
    "Schritt 2: 7 mal 8 = 54",
    "12 : 4 = 4",
    "Donc 15 × 4 = 50, puis 3 + 4 = 7.",
    "所以3+4=8。",
    "√16 + 2 = 8",
    "2^10 = 1000",
    "3² + 4² = 24",
    "-5 + 3 = 2",
    "- 5 + 3 = 9",
    "**3 + 4 = 8**",
    "$5 + $3 = $9",
    "10 / 4 = 3.5",
    "20% = 0.3",
    "Wait, 7 * 8 = 54.",
    "1. 17 * 20 = 350",
    "2.5 * 4 = 11",
    "(3 + 4) * 2 = 15",
    "The total is 3 + 4 * 2 = 14.",
    "x = 3 + 4 = 8",
    "€5 + €3 = €9",
    "5 x 3 = 16",
    "3 + 4 = 8!",
    "Therefore 3 + 4 = 8 because I say so",
    "10 kg - 300 g = 9.5 kg",
    "100 - 36 = 74",
    "2 + 2 = 5 → no",
    "3^4 = 2 (mod 5)",
    "17 mod 5 = 3",
    r"3^4 \equiv 2 \pmod{5}",
)
# fmt: on

READ = {
    "a root": "sqrt(16) + 2 = 6",
    "a remainder": "17 / 5 = 3 remainder 2",
    "congruent": "3^4 = 1 mod 5",
    "percent of": "50% of 80 + 10 = 50",
    "in words": "3 times 4 + 5 = 17",
    "a factorial": "5! + 1 = 121",
    "an absolute value": "|3 - 5| + 1 = 3",
    "decimal commas": "1,5 + 1,5 = 3",
    "a unit": "3 * 5 cm = 15 cm",
    "units": "60 km/h * 2 h = 120 km",
    "units to convert": "1.5 h + 30 min = 120 min",
    "a conversion": "1 km = 1000 m",
    "rounded": "1/3 = 0.33",
    "about": "2^10 ≈ 1000",
    "said to be about": "1/3 = about 0.3",
    "a chain": "2 + 3 + 4 = 5 + 4 = 9",
    "with a power of its unit": "3 m * 4 m = 12 m^2",
}


@pytest.mark.parametrize("told", [*TOLD, *ODD])
def test_what_is_true_is_never_wrong(told: str) -> None:
    assert "wrong" not in verdicts(told)
    assert "wrong" not in verdicts(f"Let me see.\n- {told}\nSo that is it: {told}")


@pytest.mark.parametrize("told", WRONG)
def test_what_is_wrong_is_found(told: str) -> None:
    assert "wrong" in verdicts(told)


@pytest.mark.parametrize("told", READ.values(), ids=READ)
def test_what_is_read(told: str) -> None:
    assert set(verdicts(told)) == {"right"}


def test_what_is_rounded_to_a_whole_number_and_what_follows_an_unread_word_is_not_judged() -> None:
    assert verdicts("100 / 3 = 33") == ["unknown"]
    assert verdicts("twice 16 + 2 = 6") == ["unknown"]
    assert verdicts("log(16) + 2 = 18") == ["unknown"], "neither is it right: it is not what is said"


small = st.integers(1, 40)


@st.composite
def expressions(draw: st.DrawFn, depth: int = 2) -> tuple[str, Fraction, int]:
    """Text, value, and how tightly it binds: 0 a sum, 1 a product, 2 an atom."""
    if depth == 0 or draw(st.booleans()):
        n = draw(small)
        kind = draw(st.sampled_from(["n", "root", "sup", "abs", "!", "frac", "decimal"]))
        if kind == "root":
            return draw(st.sampled_from(["sqrt({})", "√{}", r"\sqrt{{{}}}"])).format(n * n), Fraction(n), 2
        if kind == "sup":
            return f"{n}²", Fraction(n * n), 2
        if kind == "abs":
            return f"|{n} - {2 * n}|", Fraction(n), 2
        if kind == "!":
            return "4!", Fraction(24), 2
        if kind == "frac":
            return rf"\frac{{{n}}}{{3}}", Fraction(n, 3), 2
        if kind == "decimal":
            return f"{n}.5", Fraction(2 * n + 1, 2), 2
        return str(n), Fraction(n), 2
    (left, a, tight), (right, b, tight_too) = draw(expressions(depth=depth - 1)), draw(expressions(depth=depth - 1))
    sign = draw(st.sampled_from("+-*/"))
    binds = int(sign in "*/")
    left = left if tight >= binds else f"({left})"
    right = right if tight_too > binds else f"({right})"
    if sign == "/" and b == 0:
        sign, binds = "-", 0
        left = left if tight >= binds else f"({left})"
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a - b}[sign]
    shown = draw(st.sampled_from({"+": "+", "-": "-−", "*": "*×·", "/": "/÷"}[sign]))
    space = draw(st.sampled_from([" ", ""]))
    return f"{left}{space}{shown}{space}{right}", value, binds


@st.composite
def values(draw: st.DrawFn, value: Fraction) -> str:
    if value.denominator == 1:
        return draw(st.sampled_from([str(value), f"{value.numerator:,}", f"{value} + 0"]))
    places = draw(st.integers(1, 4))
    ways = [
        f"{value.numerator}/{value.denominator}",
        f"{float(value):.{places}f}",
        f"{float(value):.{places}f}".replace(".", ","),
    ]
    return draw(st.sampled_from([*ways, f"about {float(value):.1f}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"]))


@st.composite
def sentences(draw: st.DrawFn) -> str:
    """True ones, some by what stands around the sign."""
    a, b, c = draw(small), draw(small), draw(small)
    text, value, _ = draw(expressions())
    whole = draw(values(value))
    k = draw(st.integers(1, 9))
    functions = [
        f"log_2 {2**k} + {a} = {k + a}",
        f"log2({2**k}) + {a} = {k + a}",
        f"half of {2 * a} + {b} = {a + b}",
        f"twice {a} + {b} = {2 * a + b}",
        f"the sum of {a} and {b} * {c} = {a + b * c}",
        f"the product of {a} and {b} + {c} = {a * b + c}",
        f"max({a}, {b}) + {c} = {max(a, b) + c}",
        f"das Doppelte von {a} + {b} = {2 * a + b}",
        f"le triple de {a} + {b} = {3 * a + b}",
        f"{a}的平方+{b}={a * a + b}",
        f"{a} / {b} = {a // b} remainder {a % b}",
        f"{a} mod {b} + {c} = {a % b + c}",
        f"{a} * {b} = {a * b % c} mod {c}",
        f"{a},5 + {b},5 = {a + b + 1}",
        f"{a} m * {b} m = {a * b} m²",
        f"{a} km + {b} m = {1000 * a + b} m",
        f"{a * b} km / {b} h = {a} km/h",
        f"{a} h {b} min = {60 * a + b} min",
        f"{a} apples + {b} pears = {a + b} fruits",
        f"{a} * {b} = {a * b} of them",
        f"{12 * a} * 1 = {a} dozen",
        f"{a * b + 1} // {b + 1} = {(a * b + 1) // (b + 1)}",
        f"{a}% of {100 * b} + {c} = {a * b + c}",
    ]
    said = draw(st.sampled_from([f"{text} = {whole}", f"({text}) * ({text}) = ({text})^2 = ({text})²", *functions]))
    before = draw(st.one_of(st.sampled_from(["", "So ", "Step 1: ", "1. ", "* ", "$", "First, ", "and ", "即", "> "]), words))
    after = draw(st.one_of(st.sampled_from(["", ".", "!", ", so", " (as said)", "$", " - good", "。", " and", ";"]), words))
    return f"{before}{said}{after}"


words = (
    st.text("abcdefghijklmnopqrstuvwyzäéñ ,.:", max_size=12)
    .map(lambda w: f"{w.strip()} " if w.strip() else "")
    .map(lambda w: f" {w}" if w else w)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(sentences(), min_size=1, max_size=3), st.sampled_from(["\n", ". ", " ; ", "\n\n"]))
def test_no_true_sentence_is_wrong(said: list[str], between: str) -> None:
    found = check_steps(between.join(said), Nobody())
    assert [step for step in found if step.verdict == "wrong"] == []


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789 +-*/^!%|()[]{}.,:=≈√²xymh\\$'", max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    check_steps(f"{text}= 1 + 1", Nobody())


HOSTILE = {
    "a tower": "9**9**9**9 = 1",
    "towers": "\n".join(["7^9999/3 * 3^999 = 3"] * 20_000),
    "equals": "=" * 1_000_000,
    "a sum": "1 + " * 250_000 + "= 1",
    "brackets": "(" * 5_000 + "1" + ")" * 5_000 + " = 1",
    "open brackets": "(" * 1_000_000 + " = 1 + 1",
    "a chain": "1+1=" * 250_000,
    "a long number": "9" * 1_000_000 + " = 1 + 1",
    "a long exponent": "2" + "⁹" * 5_000 + " = 3",
    "factorials": "\n".join(["1000! * " * 90 + "1 = 3"] * 1_000),
    "signs": "-" * 9_000 + "1 = 2 + 1",
    "roots": "sqrt " * 190 + "2 + 1 = 5",
    "a word": "a" * 1_000_000 + " = 3 + 4",
    "spaces": " " * 1_000_000 + "= 3 + 4",
}


@pytest.mark.parametrize("thinking", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_thinking_costs_little(thinking: str) -> None:
    start = time.monotonic()
    assert "wrong" not in verdicts(thinking) or "1+1=" in thinking
    assert time.monotonic() - start < 10

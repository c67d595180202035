"""Numbers that others measured, each with its source. Never mixed with ours: a report marks every number as one or the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

PAPER = "arXiv 2506.10910"
CARD = "model card of Magistral-Small-2509"
DOCS = "docs.mistral.ai"


class Published(NamedTuple):
    benchmark: str
    model: str
    score: str
    """pass_at_1 or maj_at_K, as in eval.json."""
    value: float
    """Percent."""
    source: str
    language: str = ""


def published(benchmark: str, references: Iterable[str]) -> list[Published]:
    """What may stand beside a measurement of problems with those references. The multilingual numbers are of AIME 2024, so
    beside translations of another year there is none."""
    if is_another_aime(benchmark, references):
        return []
    return [row for row in PUBLISHED if row.benchmark == benchmark]


def is_another_aime(benchmark: str, references: Iterable[str]) -> bool:
    """Whether it is of translations that are not of AIME 2024: their ids may be any, but their answers are those."""
    return benchmark == "aime_multilingual" and any(r.strip().lstrip("0") not in _AIME_2024 for r in references)


_AIME_2024 = frozenset(map(str, (
    204, 25, 809, 116, 104, 294, 540, 197, 480, 113, 371, 385, 110, 104, 721,  # I
    73, 236, 45, 33, 80, 55, 699, 127, 902, 468, 601, 23, 321, 211, 315,  # II
)))  # fmt: skip


def _table(source: str, models: tuple[str, ...], rows: dict[tuple[str, str], tuple[float | None, ...]]) -> list[Published]:
    return [
        Published(benchmark, model, score, value, source)
        for (benchmark, score), values in rows.items()
        for model, value in zip(models, values, strict=True)
        if value is not None
    ]


_MEDIUM = ("Mistral Medium 3", "Magistral Medium 1.0", "DeepSeek-V3", "DeepSeek-R1-Zero", "DeepSeek-R1 (January 2025)")
_24B = ("24B, SFT only", "24B, RL only", "Magistral Small 1.0")
_LANGUAGES = {"en": 73.6, "fr": 68.5, "es": 69.3, "de": 66.8, "it": 66.7, "ru": 65.0, "zh": 63.7}

PUBLISHED: list[Published] = [
    *_table(f"{PAPER}, table 2", _MEDIUM, {
        ("aime24", "pass_at_1"): (26.8, 73.6, 39.2, 71.0, 79.8),
        ("aime24", "maj_at_64"): (43.4, 90.0, None, None, None),
        ("aime25", "pass_at_1"): (21.2, 64.9, 28.8, None, 70.0),
        ("aime25", "maj_at_64"): (30.0, 83.3, None, None, None),
        ("math500", "pass_at_1"): (91.0, 94.3, 90.2, 95.9, 97.3),
        ("gpqa_diamond", "pass_at_1"): (59.6, 70.8, 59.1, 73.3, 71.5),
        ("livecodebench_v5", "pass_at_1"): (29.1, 59.4, 36.2, 50.0, 65.9),
        ("livecodebench_v6", "pass_at_1"): (30.0, 50.3, None, None, None),
    }),
    *_table(f"{PAPER}, figure 1", ("Mistral Medium 3", "Magistral Medium 1.0"), {
        ("aime24", "maj_at_4"): (34.4, 81.3),
        ("aime25", "maj_at_4"): (25.8, 72.1),
    }),
    *_table(f"{PAPER}, table 3", _24B, {
        ("aime24", "pass_at_1"): (65.4, 65.8, 70.7),
        ("aime24", "maj_at_64"): (90.0, 86.7, 83.3),
        ("aime25", "pass_at_1"): (55.6, 51.9, 62.8),
        ("aime25", "maj_at_64"): (76.7, 66.7, 76.7),
        ("math500", "pass_at_1"): (93.2, 95.4, 95.9),
        ("gpqa_diamond", "pass_at_1"): (63.4, 68.8, 68.2),
        ("livecodebench_v5", "pass_at_1"): (52.2, 46.4, 55.8),
        ("livecodebench_v6", "pass_at_1"): (44.6, 42.4, 47.4),
    }),
    *_table(f"{PAPER}, table 5", ("24B, before RL",), {
        ("aime24", "pass_at_1"): (32.2,),
        ("livecodebench_v5", "pass_at_1"): (22.7,),
    }),
    *_table(DOCS, ("Magistral Medium 1.1", "Magistral Medium 1.2"), {
        ("aime24", "pass_at_1"): (72.03, 91.82),
        ("aime25", "pass_at_1"): (60.99, 83.48),
        ("gpqa_diamond", "pass_at_1"): (71.46, 76.26),
        ("livecodebench_v5", "pass_at_1"): (59.35, 75.00),
    }),
    *_table(CARD, ("Magistral Small 1.1", "Magistral Small 1.2"), {
        ("aime24", "pass_at_1"): (70.52, 86.14),
        ("aime25", "pass_at_1"): (62.03, 77.34),
        ("gpqa_diamond", "pass_at_1"): (65.78, 70.07),
        ("livecodebench_v5", "pass_at_1"): (59.17, 70.88),
    }),
    *(
        Published("aime_multilingual", "Magistral Medium 1.0", "pass_at_1", value, f"{PAPER}, table 4", language)
        for language, value in _LANGUAGES.items()
    ),
]  # fmt: skip
"""Magistral Medium and Small with their bases, versions 1.0 to 1.2. The multilingual ones are of AIME 2024."""

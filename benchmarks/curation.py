"""How long the filters without a model take, that memory stays flat, and what the search for benchmarks' problems misses.

    python benchmarks/curation.py --data FOLDER

FOLDER holds the benchmarks as `magistral eval --data` reads them; all that are found there are checked against. The problems are
10,000 and 100,000 sentences whose words are drawn from the benchmarks' own, which makes more false candidates than real problems
do. Each measure is a process of its own, so that its memory is its own.

Of what must be found, 2,000 are problems of the benchmarks, written a little otherwise (DISGUISES); of what must not, 2,000 begin
as a benchmark's problem does, for a third of its words, and 8,000 are made up.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from common import load_average, versions, write_results

from magistral import __version__
from magistral.curation.candidate import Candidate, benchmark_questions
from magistral.curation.contamination import Contamination
from magistral.curation.duplicates import Duplicates
from magistral.curation.form import form
from magistral.curation.sources.benchmarks import BENCHMARKS
from magistral.curation.stage import Dropped
from magistral.curation.words import words_of
from magistral.errors import UserError
from magistral.recipe_data import Curation

SEED = 0
SIZES = (10_000, 100_000)
STAGES = ("format", "duplicates", "benchmarks")
N_PLANTED = 2_000
DISGUISES: dict[str, Callable[[str], str]] = {
    "as it is": lambda question: question,
    "framed": lambda question: f"Solve this one and explain each step. {question} Put the answer in a box.",
    "in capitals, without stops": lambda question: re.sub("[.,;:?!]", "", question.upper()),
    "its last quarter left out": lambda question: question[: 3 * len(question) // 4],
    "every twentieth word another": lambda question: " ".join(
        "thing" if i % 20 == 7 else word for i, word in enumerate(question.split(" "))
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--found", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.data, arguments.one[0], int(arguments.one[1]))))
        return
    if arguments.found:
        print(json.dumps(found_and_missed(arguments.data)))
        return
    runs = [("--one", stage, str(n)) for stage in STAGES for n in SIZES]
    *timed, found = [alone(arguments.data, *run) for run in [*runs, ("--found",)]]
    write_results(
        "curation",
        {
            "seed": SEED,
            "load_average": load_average(),
            "versions": {**versions("numpy"), "open-magistral": __version__},
            "benchmarks": sorted(known(arguments.data)),
            "measured": timed,
            "search_for_benchmarks": found,
        },
    )


def alone(data: Path, *what: str) -> dict[str, Any]:
    """One measure, in a process of its own."""
    command = [sys.executable, __file__, "--data", str(data), *what]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    print(found, flush=True)
    return found


def known(data: Path) -> dict[str, list[tuple[str, str, bool]]]:
    """The benchmarks that the folder, or a folder of their name in it, holds."""
    held = {}
    for name in BENCHMARKS:
        for place in (data, data / name):
            try:
                held[name] = list(benchmark_questions([name], place))
                break
            except UserError:
                continue
    return held


def measured(data: Path, stage: str, n: int) -> dict[str, Any]:
    questions = [q for held in known(data).values() for q in held]
    settings = Curation()
    filters: dict[str, Callable[[], Callable[[Iterator[Candidate]], Iterator[Any]]]] = {
        "format": lambda: form,
        "duplicates": lambda: Duplicates(settings.near),
        "benchmarks": lambda: Contamination(questions, n=settings.n_gram, overlap=settings.overlap),
    }
    words = all_words(questions)
    start, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    n_kept = sum(isinstance(found, Candidate) for found in filters[stage]()(made_up(words, n)))
    end = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    return {
        "stage": stage, "problems": n, "kept": n_kept, "benchmark_problems": len(questions), "cpu_s": round(cpu_s, 2),
        "seconds": round(time.perf_counter() - started, 2), "peak_mb": round(end.ru_maxrss / 1024, 1),
    }  # fmt: skip


def found_and_missed(data: Path) -> dict[str, Any]:
    """Precision and recall of the search for benchmarks' problems, and recall by disguise."""
    questions = [q for held in known(data).values() for q in held]
    r, words = random.Random(SEED), all_words(questions)
    planted: list[tuple[str, str]] = []
    for i, (_, question, _) in enumerate(r.sample(questions, N_PLANTED)):
        name = list(DISGUISES)[i % len(DISGUISES)]
        planted.append((name, DISGUISES[name](question)))
    for _, question, _ in r.sample(questions, N_PLANTED):
        said = words_of(question)
        planted.append(("", " ".join([*said[: len(said) // 3], *r.choices(words, k=len(said))])))
    planted += [("", c.question) for c in made_up(words, 4 * N_PLANTED)]
    search = Contamination(questions, n=Curation().n_gram, overlap=Curation().overlap)
    hit = [isinstance(f, Dropped) for f in search(Candidate(id="", question=q, reference="1") for _, q in planted)]
    right = Counter(name for (name, _), h in zip(planted, hit, strict=True) if h)
    asked = Counter(name for name, _ in planted)
    n_right = right.total() - right[""]
    return {
        "planted": N_PLANTED, "others": asked[""], "precision": round(n_right / right.total(), 4),
        "recall": round(n_right / N_PLANTED, 4),
        "recall_by_disguise": {name: round(right[name] / asked[name], 4) for name in DISGUISES},
    }  # fmt: skip


def all_words(questions: Iterable[tuple[str, str, bool]]) -> list[str]:
    return [word for _, question, _ in questions for word in words_of(question)]


def made_up(words: list[str], n: int) -> Iterator[Candidate]:
    r = random.Random(SEED)
    for i in range(n):
        yield Candidate(id=str(i), question=" ".join(r.choices(words, k=r.randint(20, 90))) + "?", reference="1")


if __name__ == "__main__":
    main()

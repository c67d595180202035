"""How long the filters without a model take, and that memory stays flat: 10,000 and 100,000 made-up problems.

    python benchmarks/curation.py --data FOLDER

FOLDER holds the benchmarks as `magistral eval --data` reads them; all that are found there are checked against. The problems are
sentences whose words are drawn from the benchmarks' own, which makes more false candidates than real problems do. Each measure is
a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import load_average, versions, write_results

from magistral import __version__
from magistral.curation.candidate import Candidate, benchmark_questions
from magistral.curation.contamination import Contamination
from magistral.curation.duplicates import Duplicates
from magistral.curation.form import form
from magistral.curation.sources.benchmarks import BENCHMARKS
from magistral.errors import UserError
from magistral.recipe_data import Curation

SEED = 0
SIZES = (10_000, 100_000)
STAGES = ("format", "duplicates", "benchmarks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--one", nargs=2, metavar=("STAGE", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.data, arguments.one[0], int(arguments.one[1]))))
        return
    found = []
    for stage in STAGES:
        for n in SIZES:
            command = [sys.executable, __file__, "--data", str(arguments.data), "--one", stage, str(n)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout))
            print(found[-1])
    names = sorted(known(arguments.data))
    result = {
        "seed": SEED,
        "load": load_average(),
        "versions": {**versions("numpy"), "open-magistral": __version__},
        "benchmarks": names,
    }
    write_results("curation", {**result, "measured": found})


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
    filters = {
        "format": lambda: form,
        "duplicates": lambda: Duplicates(settings.near),
        "benchmarks": lambda: Contamination(questions, n=settings.n_gram, overlap=settings.overlap),
    }
    words = [word for _, question, _ in questions for word in question.split()]
    start, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    n_kept = sum(isinstance(found, Candidate) for found in filters[stage]()(made_up(words, n)))
    end = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    return {
        "stage": stage, "problems": n, "kept": n_kept, "benchmark_problems": len(questions), "cpu_s": round(cpu_s, 2),
        "seconds": round(time.perf_counter() - started, 2), "peak_mb": round(end.ru_maxrss / 1024, 1),
    }  # fmt: skip


def made_up(words: list[str], n: int) -> Iterator[Candidate]:
    r = random.Random(SEED)
    for i in range(n):
        yield Candidate(id=str(i), question=" ".join(r.choices(words, k=r.randint(20, 90))) + "?", reference="1")


if __name__ == "__main__":
    main()

"""Scores of a million stored completions: seconds and memory, from verdicts.jsonl to every number of eval.json but the traces.

    .venv/bin/python benchmarks/eval_million.py [--problems N] [--runs N]

The verdicts are made up: each problem has a chance of its own to be solved, and wrong answers repeat, so that votes have rivals.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from common import load_average, versions, write_results

from magistral.eval import summary
from magistral.eval.store import read_verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=15_625)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "verdicts.jsonl"
        make_up(file, args.problems, args.runs, random.Random(args.seed))
        size, wall, cpu = file.stat().st_size, time.perf_counter(), time.process_time()
        verdicts = summary.with_classes(read_verdicts(file), lambda kind: lambda a, b: a == b)
        counts = summary.counted(verdicts)
        found = summary.scores(counts)
        summary.at_every_k(counts)
        summary.by(counts, counts.family)
        summary.by(counts, counts.language)
        summary.by_length(verdicts)
        summary.totals(verdicts, (0.5, 1.5))
        summary.hardest(counts, 10)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{args.problems * args.runs} completions: {wall:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MiB")
    write_results(
        "eval_million",
        {
            "versions": versions("numpy", "pyarrow"),
            "load_average": load_average(),
            "n_problems": args.problems,
            "n_runs": args.runs,
            "seed": args.seed,
            "file_mb": round(size / 1e6),
            "seconds": round(wall, 1),
            "cpu_seconds": round(cpu, 1),
            "peak_mib": round(peak),
            "pass_at_1": round(found["pass_at_1"]["value"], 4),
        },
    )


def make_up(file: Path, n_problems: int, n_runs: int, rng: random.Random) -> None:
    same = {
        "language": "en", "kind": "math", "reason": "5 is not 7", "judge": "", "finish": "stop", "fault": "",
        "one_language": True, "versions": "open-magistral 0.1.0, latex2sympy2_extended 1.11.0, sympy 1.14.0",
    }  # fmt: skip
    with file.open("w", encoding="utf-8") as out:
        for problem in range(n_problems):
            chance = rng.random()
            for index in range(n_runs):
                right = rng.random() < chance
                n_tokens = rng.randrange(100, 40_000)
                row = {
                    "problem_id": f"p{problem}", "index": index, "family": f"f{problem % 7}", "n_prompt": 120,
                    "n_tokens": n_tokens, "outcome": "right" if right else "wrong", "n_thinking": n_tokens * 3 // 4, **same,
                    "answer": "7" if right else str(rng.randrange(10, 12 + problem % 50)),
                }  # fmt: skip
                out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

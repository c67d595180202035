"""How good and how quick verifiers are: math beside the peers that are installed, the box beside a bare process.

    python benchmarks/verifiers.py [--data FOLDER] [PART...]

FOLDER holds math500/test.jsonl. PART: box, compile, group, memory, pairs, math500; all without one. Writes
benchmarks/results/verifiers.json, where parts that were not asked for stay as they were.

Ratios are of one run on one machine, in turns, so that what else runs there slows both sides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from common import RESULTS, load_average, write_results

from magistral.verifiers.bench import Row, installed, measure, references, written_pairs
from magistral.verifiers.code import CodeVerifier
from magistral.verifiers.math import MathVerifier, versions
from magistral.verifiers.pool import Pool
from magistral.verifiers.programs import ready, version
from magistral.verifiers.sandbox.host import python
from magistral.verifiers.tests import read_tests

N_RUNS = 60
PROGRAMS = {
    "bits/stdc++.h": "#include <bits/stdc++.h>\nint main() { std::map<int, std::string> m; std::cout << m.size(); }\n",
    "iostream, vector, algorithm": "#include <iostream>\n#include <vector>\n#include <algorithm>\n"
    "int main() { std::vector<int> v{2, 1}; std::sort(v.begin(), v.end()); std::cout << v[0]; }\n",
    "a pragma before it": '#pragma GCC optimize("O3")\n#include <bits/stdc++.h>\nint main() { std::cout << 1; }\n',
}


def math500(data: Path) -> list[Row]:
    """Each reference beside itself, and beside the next one."""
    known = references(data, "math500")
    same = [Row(answer=r, reference=r, question="", right=True, kind="math500", reason="itself") for r in known]
    pairs = [(a, r) for a, r in itertools.pairwise(known) if a != r and {a, r} != {"5", "x=5"}]
    return same + [
        Row(answer=a, reference=r, question="", right=False, kind="math500 neighbours", reason="the next") for a, r in pairs
    ]


def graders(rows: list[Row]) -> dict[str, Any]:
    return {name: {kind: m.summary() for kind, m in by_kind.items()} for name, by_kind in measure(installed(), rows).items()}


def speed(data: Path) -> dict[str, Any]:
    """Pairs a second on MATH-500, of every grader in turns."""
    by_grader = graders(math500(data))
    rates = {name: round(pairs_per_s(by_kind), 1) for name, by_kind in by_grader.items()}
    ratios = {
        f"magistral_over_{name}": round(rates["magistral"] / rate, 2) for name, rate in rates.items() if name != "magistral"
    }
    return {"pairs_per_s": rates, **ratios, "graders": by_grader}


def worker_memory(data: Path) -> dict[str, float]:
    """The most resident memory of the process that answers, after MATH-500 and after the hostile pairs."""
    told = {}
    with Pool(deadline_s=2.0) as pool:
        verifier = MathVerifier(pool)
        for name, rows in (("math500", math500(data)), ("hostile", [r for r in written_pairs() if r.kind == "hostile"])):
            most = 0.0
            for row in rows:
                verifier.compare(row.answer, row.reference)
                pid = pool._workers[0].pid
                status = Path(f"/proc/{pid}/status") if pid else None
                if status and status.exists():
                    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                    most = max(most, int(fields["VmHWM"].split()[0]) / 1024)
            told[f"{name}_peak_mb"] = round(most, 1)
    return told


def box_cost(pool: Pool) -> dict[str, Any]:
    """Milliseconds of `python -I -S` on an empty program, bare and boxed, in turns."""
    bare, boxed = [], []
    with pool.box.folder({"main.py": b"pass\n"}) as folder:
        for _ in range(N_RUNS):
            bare.append(timed(lambda: subprocess.run([python(), "-I", "-S", f"{folder}/main.py"], check=True)))
            boxed.append(timed(lambda: pool.box.run([python(), "-I", "-S", "{box}/main.py"], folder)))
    ms = {
        f"{name}_{what}_ms": round(1000 * f(v), 2)
        for name, v in (("bare", bare), ("boxed", boxed))
        for what, f in STATISTICS.items()
    }
    return {"tier": str(pool.box.host.tier), **ms, "median_over_bare_ms": round(ms["boxed_median_ms"] - ms["bare_median_ms"], 2)}


STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "median": statistics.median,
    "p95": lambda v: statistics.quantiles(v, n=20)[-1],
}


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compiling(pool: Pool) -> dict[str, float]:
    """Seconds to compile a program in its box, the precompiled header being there; medians of 5."""
    tests = read_tests('[{"stdin": "", "expected": ""}]')

    def compile_once(source: str) -> None:
        with ready(pool.box, "cpp", source, tests, 1.0):
            pass

    compile_once(PROGRAMS["bits/stdc++.h"])
    return {name: round(statistics.median(timed(partial(compile_once, s)) for _ in range(5)), 3) for name, s in PROGRAMS.items()}


def group(pool: Pool) -> dict[str, float]:
    """16 completions of one problem with 20 tests, judged by as many threads as cores."""
    verifier = CodeVerifier(pool)
    verifier.factor()
    tests = read_tests(json.dumps([{"stdin": f"{n}\n", "expected": str(n * (n - 1) // 2)} for n in range(20_000, 20_020)]))
    source = "n = int(input())\nprint(sum(range(n)) + 0 * len([i for i in range(300_000)]))\n"
    n_cores = len(os.sched_getaffinity(0))
    before, start = busy(), time.perf_counter()
    with ThreadPoolExecutor(n_cores) as threads:
        verdicts = list(threads.map(lambda _: verifier.judge("python", source, tests), range(16)))
    seconds, after = time.perf_counter() - start, busy()
    assert all(v.judge == "accepted" for v in verdicts), verdicts[0].reason
    share = (after[0] - before[0]) / max(after[1] - before[1], 1)
    return {"seconds": round(seconds, 2), "tests_per_s": round(16 * 20 / seconds, 1), "busy_share_of_all_cores": round(share, 3)}


def busy() -> tuple[int, int]:
    """Ticks that all cores spent on something, and all ticks."""
    ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def pairs_per_s(by_kind: dict[str, Any]) -> float:
    kinds = [by_kind[kind] for kind in ("math500", "math500 neighbours")]
    return float(sum(k["n"] for k in kinds) / sum(k["n"] / k["pairs_per_s"] for k in kinds))


def with_pool(part: Callable[[Pool], dict[str, Any]]) -> dict[str, Any]:
    with Pool() as pool:
        return part(pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("parts", nargs="*", metavar="PART")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "box": lambda: with_pool(box_cost),
        "compile": lambda: with_pool(compiling),
        "group": lambda: with_pool(group),
        "memory": lambda: worker_memory(arguments.data),
        "pairs": lambda: graders(written_pairs()),
        "math500": lambda: speed(arguments.data),
    }
    file = RESULTS / "verifiers.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    result |= {"seed": "none: nothing is drawn", "versions": f"{versions()}, {version('cpp')}, boxed {version('python')}"}
    for name in arguments.parts or parts:
        result[name] = {"load_average_before": load_average(), **parts[name]()}
        print(name, json.dumps(result[name], indent=1, ensure_ascii=False))
    result.pop("machine", None)
    write_results("verifiers", result)


if __name__ == "__main__":
    main()

"""What scripts/quickstart reaches, over several seeds: base, after SFT, after RL, on the same held-out problems.

    .venv/bin/python benchmarks/quickstart.py --out runs/bench-quickstart

Each stage is the command that the script runs, in a process of its own. What is finished is kept: run it again to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow.parquet as pq
from common import load_average, versions, write_results

ROOT = Path(__file__).parents[1]
STAGES = ("base", "sft", "rl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "quickstart.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", default="quickstart", help="of the file in benchmarks/results")
    args = parser.parse_args()
    seeds = [one_seed(args.recipe, seed, args.out / f"seed-{seed}") for seed in args.seeds]
    stages = [s for s in STAGES if s in seeds[0]]
    gained = {
        f"{after}_over_{before}": [round(seed[after]["pass_at_1"] - seed[before]["pass_at_1"], 4) for seed in seeds]
        for before, after in pairwise(stages)
    }
    result = {
        "recipe": str(args.recipe.resolve().relative_to(ROOT)),
        "versions": versions("torch", "tokenizers", "reasoning-gym"),
        "load_average_at_end": load_average(),
        "seeds": seeds,
        "mean_pass_at_1": {stage: round(fmean(seed[stage]["pass_at_1"] for seed in seeds), 4) for stage in stages},
        "gained": gained,
        "gained_in_all": {
            f"{b}_over_{a}": paired([args.out / f"seed-{s}" for s in args.seeds], a, b) for a, b in pairwise(stages)
        },
    }
    print(json.dumps({k: result[k] for k in ("mean_pass_at_1", "gained", "gained_in_all")}, indent=1))
    write_results(args.name, result)


def one_seed(recipe: Path, seed: int, out: Path) -> dict[str, Any]:
    """The quickstart's stages; a recipe without [sft] goes from the base to RL, Medium's path."""
    has_sft = "[sft]" in recipe.read_text(encoding="utf-8")
    found: dict[str, Any] = {"seed": seed}
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}

    def run(stage: str, verb: str, *options: str) -> None:
        print(f"== seed {seed}: {stage}", flush=True)
        info, note = out / stage / "run.json", out / f"{stage}.memory.json"
        if info.exists() and json.loads(info.read_text())["state"] == "done":  # an earlier call ran it
            seconds[stage] = json.loads(info.read_text())["seconds"]
            memory[stage] = json.loads(note.read_text()) if note.exists() else 0.0
            return
        command = [
            sys.executable,
            "-m",
            "magistral",
            verb,
            str(recipe),
            "--out",
            str(out / stage),
            "--resume",
            "--set",
            f"seed={seed}",
        ]
        memory[stage] = run_and_measure([*command, *options])
        note.write_text(json.dumps(memory[stage]))
        seconds[stage] = json.loads(info.read_text())["seconds"]

    def measure(stage: str, model: str) -> None:
        run(f"eval-{stage}", "eval", "--model", model)
        found[stage] = scores(json.loads((out / f"eval-{stage}" / "eval.json").read_text()))

    measure("base", "smollm2")
    start = "smollm2"
    if has_sft:
        run("sft", "sft")
        start = str(out / "sft")
        measure("sft", start)
    run("rl", "rl", "--model", start)
    measure("rl", str(out / "rl"))
    return {
        **found,
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "seconds_in_all": round(sum(seconds.values()), 1),
        "peak_memory_gib": {k: round(v, 2) for k, v in memory.items() if v},
    }


def paired(runs: list[Path], before: str, after: str) -> dict[str, float]:
    """Gain in pass@1 over all seeds with its normal 95 % interval, by problem: the same ones were asked before and after."""
    gains: dict[str, list[float]] = {}
    for run in runs:
        old, new = (share_right(run / f"eval-{stage}") for stage in (before, after))
        for problem, right in new.items():
            gains.setdefault(problem, []).append(right - old[problem])
    each = [fmean(g) for g in gains.values()]
    half = 1.96 * stdev(each) / len(each) ** 0.5
    return {"value": round(fmean(each), 4), "low": round(fmean(each) - half, 4), "high": round(fmean(each) + half, 4)}


def share_right(run: Path) -> dict[str, float]:
    """Of each problem, by id."""
    right: dict[str, list[bool]] = {}
    for file in sorted((run / "traces").glob("*.parquet")):
        for row in pq.read_table(file, columns=["problem_id", "outcome"]).to_pylist():
            right.setdefault(row["problem_id"], []).append(row["outcome"] == "right")
    return {problem: fmean(r) for problem, r in right.items()}


def run_and_measure(command: list[str]) -> float:
    """Peak resident memory of the command itself, GiB; it must end well."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 2**20


def scores(result: dict[str, Any]) -> dict[str, Any]:
    s = result["scores"]
    majority = next(name for name in s if name.startswith("maj_at_"))
    return {
        "pass_at_1": round(s["pass_at_1"]["value"], 4),
        "interval": [round(s["pass_at_1"][end], 4) for end in ("low", "high")],
        majority: round(s[majority]["value"], 4),
        "well_formed": round(s["well_formed"]["value"], 4),
        "tokens": round(s["tokens"]["value"], 1),
        "reward": round(s["reward"]["value"], 4),
        "n_problems": result["n_problems"],
        "n_runs": result["n_runs"],
    }


if __name__ == "__main__":
    main()

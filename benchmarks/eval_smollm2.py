"""SmolLM2-135M-Instruct on a selection of GSM8K and MGSM, and every answer judged a second time by math-verify.

    .venv/bin/python benchmarks/eval_smollm2.py [--data FOLDER] [--problems N] [--runs N]

Runs `magistral eval` as a person would. Its verdicts are set beside two of math-verify's: on the same boxed answer, and on the
whole text with its own search for an answer, which takes numbers outside a box too. Every disagreement is listed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from common import load_average, versions, write_results
from math_verify import parse, verify

from magistral import __version__
from magistral.cli.benchmarks import Wishes, measure_all, report
from magistral.cli.served import Means
from magistral.curation.sources.benchmarks import Selection, read_benchmark
from magistral.eval.store import lines
from magistral.verifiers.answer import last_boxed
from magistral.verifiers.judges import Judges

SYSTEM = (
    "Solve the problem step by step, in a few short lines. Then write the answer, which is a number, in a box. "
    "Example of a last line: The answer is \\boxed{27}."
)
"""chosen: a model this small writes no box without being shown one."""
LANGUAGES = ("de", "en", "es", "fr", "ru", "zh")
MAX_TOKENS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--problems", type=int, default=100, help="of each benchmark")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Judges() as judges:
        out = args.out or Path(scratch)
        wishes = Wishes(
            model="smollm2", data=args.data, selection=Selection(languages=LANGUAGES), n_problems=args.problems, n_runs=args.runs,
            max_tokens=MAX_TOKENS, seed=args.seed, system=SYSTEM,
        )  # fmt: skip
        measure_all(["gsm8k", "mgsm"], wishes, Means(n_slots=64, threads=args.threads), judges, out, resume=True)
        report(out, [])
        found = {name: of_one(name, out / name, args.data) for name in ("gsm8k", "mgsm")}
    settings = {"problems": args.problems, "runs": args.runs, "seed": args.seed, "max_tokens": MAX_TOKENS, "system": SYSTEM}
    write_results(
        "eval_smollm2",
        {
            "versions": {**versions("torch", "math-verify"), "open-magistral": __version__},
            "load_average": load_average(),
            "model": "SmolLM2-135M-Instruct, int8",
            **settings,
            **found,
        },
    )


def of_one(name: str, folder: Path, data: Path) -> dict[str, Any]:
    result = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    verdicts = {(row["problem_id"], row["index"]): row for row in lines(folder / "verdicts.jsonl")}
    references = {p.id: p.reference for p in read_benchmark(name, data, Selection())}
    boxed: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    for kept in lines(folder / "completions.jsonl"):
        verdict, reference = verdicts[kept["problem_id"], kept["index"]], references[kept["problem_id"]]
        ours = verdict["outcome"] == "right"
        about = {
            "problem": kept["problem_id"], "reference": reference, "ours": verdict["outcome"], "reason": verdict["reason"],
            "end_of_text": kept["summary"][-80:],
        }  # fmt: skip
        answer = last_boxed(kept["summary"])
        if answer is not None and theirs(f"\\boxed{{{answer}}}", reference) != ours:
            boxed.append(about)
        if theirs(kept["summary"], reference) != ours:
            whole.append(about)
    return {
        **{part: result[part] for part in ("scores", "by_language", "totals", "engine_busy", "seconds", "selection")},
        "math_verify": {
            "n_compared": len(verdicts),
            "disagreements_on_the_boxed_answer": boxed,
            "disagreements_on_the_whole_text": whole,
        },
    }


def theirs(text: str, reference: str) -> bool:
    return bool(verify(parse(f"${reference}$"), parse(text)))


if __name__ == "__main__":
    main()

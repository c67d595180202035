"""Asynchronous against synchronous RL, and how long new weights are on their way: each role in a process of its own, on Ray.

    python benchmarks/asynchronous.py            both parts, about ten minutes on two cores
    python benchmarks/asynchronous.py --quick    fewer steps and a small model on the way: to see that it runs

Part 1: the nano model, groups whose lengths have a long tail (the longest five times the shortest), the same engine, trainer
and records; n_async = n_batch (synchronous) and n_async = 2 n_batch, in turn, where every group teaches and where half do.
Completions trained on per second.
Part 2: a model of the sizes of SmolLM2-135M from a trainer's process to a generator's, which is writing all the while: from
the asking until it writes with them, and how long its writing stands still.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean, median
from types import SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import ray
import torch
from common import load_average, versions, write_results

from magistral.engines.base import Request
from magistral.flow import Completion, Outcome, Problem, Reward, Scored, StepReport, Trace, Verdict
from magistral.log import open_run
from magistral.models.load import load_recipe_model
from magistral.models.sizes import Sizes
from magistral.models.transformer import new_transformer
from magistral.pipeline.curriculum import seed_of
from magistral.pipeline.growing import Desk
from magistral.pipeline.make import Ingredients
from magistral.pipeline.run import run_rl
from magistral.pipeline.workers import GeneratorWorker, TrainerWorker
from magistral.recipe import load_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "nano.toml"
SHORTEST, LONGEST, TAIL = 40, 200, 1.2
"""Tokens; lengths are SHORTEST * a Pareto draw of this shape, cut at LONGEST: most are short, a few are five times as long."""
N_BATCH, GROUP = 64, 2
USELESS = {"every group teaches": 0, "half of the groups teach": 5}
"""Of ten groups. In the first, generator and trainer have as much to do, so each waits for the other now and then; in the second,
as in most runs, writing is what takes the time."""
SMOLLM2 = Sizes(
    family="llama", n_words=49152, dim=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, hidden_dim=1536, norm_eps=1e-5,
    rope_theta=100000.0, window=8192, tied=True,
)  # fmt: skip


class LongTailDesk(Desk):
    def request(self, ordinal: int) -> Request:
        length = min(LONGEST, int(SHORTEST * Random(seed_of("length", ordinal)).paretovariate(TAIL)))
        return replace(super().request(ordinal), max_tokens=length)


class LongTail(Ingredients):
    def desk(self) -> Desk:
        plain = Ingredients.desk(self)
        return LongTailDesk(plain.prompt_of, plain.decode, temperature=plain.temperature)


def score(n_useless: int, completion: Completion) -> Scored:
    """`n_useless`: of ten groups, whose completions are all alike."""
    teaches = completion.group % 10 >= n_useless
    verdict = Verdict(outcome=Outcome.RIGHT, reason="")
    trace = Trace(thinking="", summary="", well_formed=True)
    return Scored(
        completion=completion, trace=trace, verdict=verdict, reward=Reward(correctness=float(teaches and completion.index % 2))
    )


def run(n_async: int, steps: int, seed: int, n_useless: int) -> dict[str, float]:
    changes = {
        "seed": seed, "runtime.kind": "ray", "rl.n_async": n_async, "rl.n_batch": N_BATCH, "rl.n_minibatch": N_BATCH,
        "rl.group_size": GROUP, "rl.steps": steps, "rl.max_tokens": LONGEST, "rl.checkpoint_every": 1000,
        "rl.micro_batch_tokens": 256, "model.window": 256, "engine.n_slots": 2 * N_BATCH, "eval.n_runs": 1,
    }  # fmt: skip
    recipe = load_recipe(RECIPE, tuple(f"{key}={value}" for key, value in changes.items()))
    assert recipe.rl is not None
    model, tokenizer = load_recipe_model(recipe.model, seed)
    ingredients = LongTail(
        recipe, recipe.rl, model, tokenizer, lambda: nullcontext(SimpleNamespace(score=partial(score, n_useless)))
    )
    problems = [Problem(id=str(i), question=f"{i} + 1 = ?", reference="") for i in range(64)]
    reports: list[StepReport] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(Path(folder) / "run", recipe, stage="rl", model="scratch", resume=False) as out,
    ):
        run_rl(ingredients, problems, out, on_step=reports.append)
    counted = [r.values for r in reports[2:]]  # the first two begin with an empty queue
    seconds = sum(v["seconds"] for v in counted)
    return {
        "completions_per_s": N_BATCH * len(counted) / seconds,
        "tokens_per_s": sum(v["n_tokens"] for v in counted) / seconds,
        **{name: fmean(v[name] for v in counted) for name in ("idle/generator", "idle/trainer", "staleness")},
        "switch_seconds": max(v["switch_seconds"] for v in counted),
    }


def compared(n_useless: int, steps: int, repeats: int, seed: int) -> dict[str, Any]:
    """Synchronous and asynchronous runs in turn."""
    runs: dict[str, list[dict[str, float]]] = {"synchronous": [], "asynchronous": []}
    for i in range(repeats):
        for name, n_async in (("synchronous", N_BATCH), ("asynchronous", 2 * N_BATCH)):
            runs[name].append(run(n_async, steps, seed + i, n_useless))
            print(n_useless, name, {k: round(v, 4) for k, v in runs[name][-1].items()}, flush=True)
    pairs = zip(runs["asynchronous"], runs["synchronous"], strict=True)
    ratios = [round(a["completions_per_s"] / s["completions_per_s"], 3) for a, s in pairs]
    return {"runs": runs, "ratios": ratios, "ratio_median": median(ratios)}


def broadcast(sizes: Sizes, n: int) -> dict[str, Any]:
    """Medians of `n` broadcasts after two that make the buffers."""
    recipe = load_recipe(RECIPE, ("model.window=160", "engine.n_slots=8"))
    assert recipe.rl is not None
    _, tokenizer = load_recipe_model(recipe.model, 0)
    model = new_transformer(sizes, seed=0)
    n_bytes = sum(p.numel() for p in model.parameters()) * 4
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=4 * n_bytes + 2**28, log_to_driver=False)
    shared = ray.put(
        Ingredients(recipe, recipe.rl, model, tokenizer, lambda: nullcontext(SimpleNamespace(score=partial(score, 0))))
    )
    trainer: Any = ray.remote(TrainerWorker).remote(shared, 1)
    generating: Any = partial(ray.remote, concurrency_groups={"load": 1})  # a name that its types leave out
    generator = generating()(GeneratorWorker).remote(shared, 1, 0)
    request = Request(prompt=(5, 6, 7), seeds=tuple(range(8)), max_tokens=150, key=0)
    ray.get(generator.write.remote([request], 0.1))
    totals, sent, fetches, switches = [], [], [], []
    for version in range(1, n + 3):
        writing = generator.write.remote([replace(request, key=version)], 1.5)
        start = time.perf_counter()
        seal, arrays = trainer.weights.options(num_returns=2).remote(version)
        loading = generator.load.options(concurrency_group="load").remote([arrays], ray.get(seal))
        sent.append(time.perf_counter() - start)
        fetched_s, switch_s = ray.get(loading)
        totals.append(time.perf_counter() - start)
        fetches.append(fetched_s)
        switches.append(switch_s)
        ray.get(writing)
        del arrays
    alone = ray.get(generator.write.remote([], 2.0))
    n_steps = sum(len(growth.gained.tokens) for growth in alone.news) / 8
    ray.shutdown()
    return {
        "megabytes": n_bytes / 1e6,
        "total_s": median(totals[2:]),
        "of_it_seal_and_send_s": median(sent[2:]),
        "of_it_fetch_check_and_pack_s": median(fetches[2:]),
        "of_it_switch_s": median(switches[2:]),
        "decode_step_s": alone.busy_s / n_steps,
        "all_totals_s": [round(t, 3) for t in totals],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    steps, repeats = (4, 1) if args.quick else (18, 3)
    load_before = load_average()
    found = {name: compared(n_useless, steps, repeats, args.seed) for name, n_useless in USELESS.items()}
    sent = broadcast(replace(SMOLLM2, n_layers=2) if args.quick else SMOLLM2, 2 if args.quick else 6)
    print({name: one["ratios"] for name, one in found.items()}, "broadcast", sent)
    if not args.quick:
        result = {
            "versions": versions("torch", "ray", "numpy", "xxhash"), "seed": args.seed, "load_average_before": load_before,
            "setting": {"n_batch": N_BATCH, "group": GROUP, "tokens": [SHORTEST, LONGEST], "pareto_shape": TAIL, "steps": steps},
            "useless_of_ten": USELESS, "found": found, "broadcast": sent,
        }  # fmt: skip
        write_results("asynchronous", result)


if __name__ == "__main__":
    main()

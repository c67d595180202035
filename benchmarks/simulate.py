"""The loop in virtual time on clusters that are not here, and on this machine beside a real run.

    .venv/bin/python benchmarks/simulate.py            1, 8, 256 and 4,096 GPUs: results/simulate.json, read by docs/scaling.md
    .venv/bin/python benchmarks/simulate.py --check    predicts a real run on Ray here; fails where it is off by over 15 %

Nothing of the first depends on the machine: what it assumes is in pipeline/forecast.py. The check measures the decode steps and
training steps of a tiny model alone, predicts tokens a second from them, then runs it with one generator and one trainer,
each in a process of its own. Lengths are those that were written. It needs two quiet cores.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import load_average, versions, write_results

from magistral import __version__
from magistral.engines.base import Request
from magistral.flow import Completion, Outcome, Problem, Reward, Scored, Trace, Verdict
from magistral.models.sizes import MAGISTRAL_SMALL
from magistral.pipeline.forecast import GPUS, Speeds, generator_memory, mean_held, speeds_of, trainer_memory
from magistral.pipeline.simulate import bottleneck, setting_of, simulate
from magistral.recipe import load_recipe

ROOT = Path(__file__).parents[1]
BASE = ROOT / "recipes" / "small_rl.toml"
LORA = "rl.lora={rank=32,alpha=64}"
CLUSTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "1 H200": ("h200", (
        LORA, "runtime.n_generators=1", "runtime.generator_gpus=0.5", "runtime.n_trainers=1", "runtime.trainer_gpus=0.5",
        "engine.n_slots=16", "rl.n_batch=128", "rl.n_minibatch=128", "rl.n_async=256", "rl.micro_batch_tokens=8192",
        "rl.max_tokens=6144", "reward.l_max=6144", "reward.l_cache=2048",
    )),
    "8 H100": ("h100", (
        LORA, "runtime.n_generators=3", "runtime.n_trainers=2", "engine.n_slots=48",
        "rl.n_batch=256", "rl.n_minibatch=256", "rl.n_async=512",
    )),
    "256 H100": ("h100", ()),
    "4096 H100, the same batch": ("h100", ("runtime.n_generators=1792", "runtime.n_trainers=512")),
    "4096 H100, a batch of 16 k": ("h100", (
        "runtime.n_generators=1792", "runtime.n_trainers=512", "runtime.n_verifiers=1024",
        "rl.n_batch=16384", "rl.n_minibatch=16384", "rl.n_async=32768",
    )),
}  # fmt: skip
"""Name to card and changes of recipes/small_rl.toml."""
LIMIT = 0.15
TINY = (
    "runtime.kind=ray", "model.window=160",
    "engine.n_slots=32", "rl.group_size=4", "rl.n_batch=32", "rl.n_minibatch=32", "rl.n_async=64",
    "rl.steps=24", "rl.max_tokens=96", "rl.checkpoint_every=1000", "rl.lr=1e-6",
)  # fmt: skip
"""Changes of recipes/nano.toml."""
WARM_UP = 4
"""First steps that are left out: processes start, and all lines begin at once."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default="", help="only clusters whose name begins so; writes nothing")
    args = parser.parse_args()
    if args.check:
        sys.exit(check())
    found = {name: planned(*CLUSTERS[name]) for name in CLUSTERS if name.startswith(args.only)}
    for name, row in found.items():
        print(name, row)
    if not args.only:
        write_results("simulate", {"seed": 0, "versions": {"open-magistral": __version__, **versions()}, "clusters": found})


def planned(card: str, changes: tuple[str, ...]) -> dict[str, Any]:
    recipe = load_recipe(BASE, changes)
    assert recipe.rl is not None
    rl, runtime, gpu, sizes = recipe.rl, recipe.runtime, GPUS[card], MAGISTRAL_SMALL
    setting = setting_of(recipe, rl, speeds_of(sizes, gpu, runtime, rl))
    start = time.perf_counter()
    forecast, what, gains = bottleneck(setting)
    n_slots = min(recipe.engine.n_slots, -(-rl.n_async // runtime.n_generators))
    held = generator_memory(sizes, gpu, runtime, n_slots=n_slots, n_tokens=mean_held(rl))
    shared = trainer_memory(sizes, gpu, runtime, rl)
    return {
        **{name: round(value, 4) for name, value in asdict(forecast).items()},
        "bottleneck": what,
        "gains_at_half_the_time": {name: round(gain, 3) for name, gain in gains.items()},
        "generator_gib": round(held.total / 2**30, 1),
        "trainer_gib": round(shared.total / 2**30, 1),
        "limit_gib": round(min(held.limit, shared.limit) / 2**30, 1),
        "fits": held.fits and shared.fits,
        "simulated_in_s": round(time.perf_counter() - start, 1),
    }


class Letters:
    """Pays the share of letters in the text: it differs within every group."""

    def score(self, c: Completion) -> Scored:
        share = sum(ch.isalpha() for ch in c.text) / max(1, len(c.text))
        verdict = Verdict(outcome=Outcome.WRONG, reason="benchmark")
        trace = Trace(thinking="", summary="", well_formed=True)
        return Scored(completion=c, trace=trace, verdict=verdict, reward=Reward(correctness=share + 1e-6 * c.index))


def letters() -> Any:
    return nullcontext(Letters())


def check() -> int:
    """0 where the tokens a second of a real run are within LIMIT of what was predicted."""
    import torch

    from magistral.models.load import load_recipe_model
    from magistral.pipeline.make import Ingredients

    torch.set_num_threads(1)
    recipe = load_recipe(ROOT / "recipes" / "nano.toml", TINY)
    assert recipe.rl is not None
    parts = Ingredients(recipe, recipe.rl, *load_recipe_model(recipe.model, recipe.seed), letters)
    with parts.engine() as engine:
        speeds = measured(parts, engine)
    real, lengths, n_prompt = real_run(parts)
    setting = replace(
        setting_of(recipe, recipe.rl, speeds),
        lengths=lambda random: random.choice(lengths), n_prompt=n_prompt, dropped=0.0,
    )  # fmt: skip
    predicted = simulate(setting)
    off = predicted.tokens_per_s / real["tokens_per_s"] - 1
    result = {"real": real, "predicted": asdict(predicted), "speeds": asdict(speeds), "off": round(off, 3)}
    print(result)
    told = {"open-magistral": __version__, **versions("torch", "ray")}
    write_results("simulate_check", {"seed": recipe.seed, "versions": told, "load": load_average(), **result})
    return int(abs(off) > LIMIT)


def measured(parts: Any, engine: Any) -> Speeds:
    """Of the engine and the trainer, each alone in this process."""
    from magistral.pipeline.growing import completion_of

    desk, learner = parts.desk(), parts.learner()
    problem = Problem(id="probe", question="2 + 2 = ?", reference="4")
    prompt = desk.prompt_of(problem)
    rows, seconds, groups = [], [], []
    for n in (4, 8, 16, 32):
        for ordinal in range(n // 4):
            seeds = tuple(range(4 * ordinal, 4 * ordinal + 4))
            engine.submit(Request(prompt=prompt, seeds=seeds, max_tokens=parts.rl.max_tokens, key=ordinal))
        written, age = [], 0
        while not engine.idle:
            start = time.perf_counter()
            written += engine.step()
            age += 1
            if age > 1:  # the first reads the prompts
                alive = n - len(written)
                rows.append([1, alive, alive * (len(prompt) + age)])
                seconds.append(time.perf_counter() - start)
        groups = [[completion_of(w, problem, w.request.key, parts.tokenizer.decode) for w in written]]
    fixed, row, cached = map(float, np.linalg.lstsq(np.array(rows, dtype=float), np.array(seconds), rcond=None)[0])
    scored = [[Letters().score(c) for c in group] for group in groups]
    n_tokens = sum(len(c.tokens) + len(prompt) for c in groups[0])
    took = []
    for version in range(1, 5):
        start = time.perf_counter()
        asyncio.run(learner.step(scored, version))
        took.append(time.perf_counter() - start)
    return Speeds(decode_s=fixed, row_s=row, cached_s=max(0.0, cached), token_s=median(took[1:]) / n_tokens, verify_s=0.001)


def real_run(parts: Any) -> tuple[dict[str, float], list[int], int]:
    """Numbers after the first steps, lengths that were written, and the prompt's mean tokens."""
    from magistral.log import open_run
    from magistral.pipeline.run import run_rl

    problems = [Problem(id=f"sum-{i}", question=f"{i} + 1 = ?", reference=str(i + 1)) for i in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        with open_run(Path(folder) / "run", parts.recipe, stage="rl", model="scratch", resume=False) as run:
            run_rl(parts, problems, run, on_step=lambda _: None)
        steps = [m["values"] for m in run.metrics()[WARM_UP:]]
        traces = list(run.traces())
    seconds = sum(v["seconds"] for v in steps)
    means = {name: float(np.mean([v[name] for v in steps])) for name in ("idle/generator", "idle/trainer", "staleness")}
    n_prompt = round(float(np.mean([len(t["prompt_tokens"]) for t in traces])))
    tokens = sum(v["tokens_per_s"] * v["seconds"] for v in steps)
    return {"tokens_per_s": tokens / seconds, **means}, [len(t["tokens"]) for t in traces], n_prompt


if __name__ == "__main__":
    main()

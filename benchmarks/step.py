"""Seconds of a whole RL step (write, judge, train, new weights) against TRL's GRPOTrainer on the same CPU.

    .venv/bin/python benchmarks/step.py            (needs the extra "bench")

The same model, prompts, reward and batch: 4 prompts x 8 completions of at most 64 tokens, temperature 1, no KL term. Each
contender runs in a process of its own, in turn, `--repeats` times; the first step of each run is a warm-up and is left out.

    trl               all weights trained, float32
    magistral full    all weights trained, float32 generator: the same work
    magistral recipe  as recipes/quickstart.toml trains: LoRA, 8-bit generator

The reward (the share of letters in the text) differs within every group, so nothing is dropped and all train on all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from types import SimpleNamespace
from typing import Any

from common import child_result, load_average, versions, write_results

ROOT = Path(__file__).parents[1]
CONTENDERS = ("trl", "magistral full", "magistral recipe")
GROUPS, GROUP_SIZE, NEW = 4, 8, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="of each run, after its warm-up")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        report = run_trl(args) if args.child == "trl" else run_magistral(args, full=args.child.endswith("full"))
        print("RESULT " + json.dumps(report))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for repeat in range(args.repeats):
        for name in CONTENDERS:
            found[name].append(in_a_process(name, args))
            print(f"repeat {repeat} {name:18} {found[name][-1]}", flush=True)
    seconds = {name: round(median(s for run in runs for s in run["seconds"]), 2) for name, runs in found.items()}
    write_results(
        "step",
        {
            "versions": versions("torch", "transformers", "trl"),
            "model": "smollm2",
            "batch": {"prompts": GROUPS, "completions_each": GROUP_SIZE, "max_new_tokens": NEW, "temperature": 1.0},
            "seed": args.seed,
            "threads": args.threads,
            "load_average_at_end": load_average(),
            "runs": found,
            "median_seconds": seconds,
            "times_as_fast_as_trl": {name: round(seconds["trl"] / s, 2) for name, s in seconds.items()},
            "peak_memory_gib": {name: max(run["peak_memory_gib"] for run in runs) for name, runs in found.items()},
        },
    )


def in_a_process(name: str, args: argparse.Namespace) -> dict[str, Any]:
    options = [f"--{option}={getattr(args, option)}" for option in ("steps", "threads", "seed")]
    return child_result(__file__, "--child", name, *options)


def letters(text: str) -> float:
    return sum(c.isalpha() for c in text) / max(len(text), 1)


def prompts(n: int) -> list[str]:
    return [f"Tell me a short story about a town with {i + 2} bridges." for i in range(n)]


def peak_memory_gib() -> float:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def run_magistral(args: argparse.Namespace, *, full: bool) -> dict[str, Any]:
    import torch

    from magistral.flow import Completion, Outcome, Problem, Reward, Scored, StepReport, Verdict
    from magistral.log import open_run
    from magistral.models.load import load_model
    from magistral.pipeline.make import Ingredients
    from magistral.pipeline.run import run_rl
    from magistral.recipe import load_recipe
    from magistral.text.trace import THINK_TEXT, parse

    torch.set_num_threads(args.threads)
    n = GROUPS * GROUP_SIZE
    values = {
        "seed": args.seed,
        "rl.steps": args.steps + 1,
        "rl.group_size": GROUP_SIZE,
        "rl.n_batch": n,
        "rl.n_minibatch": n,
        "rl.n_async": n,
        "rl.max_tokens": NEW,
        "rl.checkpoint_every": 1000,
        "reward.l_max": NEW,
        "model.window": 192,
        "engine.n_slots": n,
    }
    changes = [f"{key}={value}" for key, value in values.items()]
    if full:
        changes += ["engine.weights=float32", "rl.lr=1e-6"]
    recipe = load_recipe(ROOT / "recipes" / "quickstart.toml", tuple(changes))
    if full:
        assert recipe.rl is not None
        recipe = recipe.model_copy(update={"rl": recipe.rl.model_copy(update={"lora": None})})
    model, tokenizer = load_model("smollm2")
    problems = [
        Problem(id=str(i), question=q, reference="", family="story") for i, q in enumerate(prompts(GROUPS * (args.steps + 1)))
    ]
    reports: list[StepReport] = []

    def score(completion: Completion) -> Scored:
        return Scored(
            completion=completion,
            trace=parse(completion.text, THINK_TEXT),
            verdict=Verdict(outcome=Outcome.RIGHT, reason="", stage="letters"),
            reward=Reward(correctness=letters(completion.text)),
        )

    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(Path(folder) / "run", recipe, stage="rl", model="smollm2", resume=False) as run,
    ):
        assert recipe.rl is not None
        ingredients = Ingredients(recipe, recipe.rl, model, tokenizer, lambda: nullcontext(SimpleNamespace(score=score)))
        run_rl(ingredients, problems, run, on_step=reports.append)
    return {
        "seconds": [round(r.values["seconds"], 2) for r in reports[1:]],
        "tokens_mean": [round(r.values["tokens_mean"], 1) for r in reports[1:]],
        "peak_memory_gib": peak_memory_gib(),
    }


def run_trl(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from magistral.models.load import load_model, save_model

    torch.set_num_threads(args.threads)
    marks: list[float] = []
    lengths: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    def reward(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.append(round(fmean(len(ids) for ids in completion_ids), 1))
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        return [letters(t) for t in texts]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.mkdir()
        ours, our_tokenizer = load_model("smollm2")
        save_model(path, ours, our_tokenizer, ours.named_parameters())
        del ours
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        n = GROUPS * GROUP_SIZE
        config = GRPOConfig(
            output_dir=f"{folder}/out", per_device_train_batch_size=n, num_generations=GROUP_SIZE, max_completion_length=NEW,
            max_steps=args.steps + 1, beta=0.0, temperature=1.0, learning_rate=1e-6, use_cpu=True, bf16=False, report_to=[],
            save_strategy="no", disable_tqdm=True, logging_steps=1000, seed=args.seed, gradient_checkpointing=False,
        )  # fmt: skip
        data = Dataset.from_list([{"prompt": [{"role": "user", "content": q}]} for q in prompts(GROUPS * (args.steps + 1))])
        trainer = GRPOTrainer(
            model=model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()]
        )
        trainer.train()
    return {
        "seconds": [round(b - a, 2) for a, b in pairwise(marks)],
        "tokens_mean": lengths[1:],
        "peak_memory_gib": peak_memory_gib(),
    }


if __name__ == "__main__":
    main()

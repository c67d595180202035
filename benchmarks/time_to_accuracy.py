"""Seconds of RL until held-out problems are solved as often: ours, and TRL's GRPOTrainer on the same CPU.

    .venv/bin/python benchmarks/time_to_accuracy.py            (needs the extras "bench", "ray" and "problems"; about 40 minutes)

Both begin with the same weights (recipes/nano.toml's supervised stage, which is not timed), ask the same problems with the same
prompts, pay by the same scorer, and take steps of the same size at the same learning rate, with the same clip and no KL term.
Each first takes a few steps in every setting of threads it has, and runs in the quickest. The clock runs from the call that
trains to the writing of a checkpoint; checkpoints are measured afterwards, on problems that were not trained on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from common import load_average, versions, write_results

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "nano.toml"
SIZES = {
    "1 M": ("eval.n_runs=16",),
    "6 M": ("eval.n_runs=16", "model.scratch.dim=256", "model.scratch.n_layers=8", "model.scratch.hidden_dim=768", "sft.lr=1e-3"),
}
"""Changes of the recipe."""
SETTINGS = {
    "trl": ("1 thread", "2 threads"),
    "magistral": ("1 thread", "2 threads", "generator and trainer"),
}
GOAL = 0.75
"""pass@1 on held-out problems; chosen before the runs that are kept: most of what RL gains here."""
EVERY = 4
"""Steps between checkpoints."""
PROBE = 4
"""Steps in each setting, the first of which is left out."""


class Job(NamedTuple):
    """A run in a process of its own."""

    who: str
    setting: str
    size: str
    seed: int
    start: str
    """The model's folder."""
    out: str
    n_steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", choices=list(SIZES), nargs="+", default=list(SIZES))
    parser.add_argument("--steps", type=int, default=48, help="at most")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(Job(*json.loads(args.child)))
        return
    found = {size: compared(size, args.seeds, args.steps) for size in args.sizes}
    about = {"versions": versions("torch", "transformers", "trl"), "load_average_at_end": load_average()}
    write_results("time_to_accuracy", {**about, "goal": GOAL, "seeds": args.seeds, "every": EVERY, "sizes": found})


def compared(size: str, seeds: list[int], n_steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        runs: list[dict[str, Any]] = []
        probed: dict[str, dict[str, float]] = {}
        for seed in seeds:
            start = Path(folder) / f"sft-{seed}"
            sft(size, seed, start)
            if not runs:
                probed = {who: {s: probe(who, s, size, seed, start) for s in settings} for who, settings in SETTINGS.items()}
                print(size, probed, flush=True)
            row: dict[str, Any] = {"seed": seed, "start": accuracies(size, seed, [newest(start)])[0]}
            for who, seconds in probed.items():
                quickest = min(seconds, key=seconds.__getitem__)
                job = Job(who, quickest, size, seed, str(newest(start)), f"{folder}/{who}-{seed}", n_steps)
                told = in_a_process(job)
                told["accuracy"] = accuracies(size, seed, checkpoints(job))
                told["reached_s"] = next((s for s, a in zip(told["seconds"], told["accuracy"], strict=True) if a >= GOAL), None)
                row[who] = told
            print(size, row, flush=True)
            runs.append(row)
    reached = [(run["trl"]["reached_s"], run["magistral"]["reached_s"]) for run in runs]
    ratios = [round(theirs / ours, 2) for theirs, ours in reached if theirs and ours]
    step = {who: min(seconds.values()) for who, seconds in probed.items()}
    return {
        "seconds_a_step": probed,
        "runs": runs,
        "times_as_fast_to_the_goal": ratios,
        "median": median(ratios) if ratios else None,
        "times_as_fast_a_step": round(step["trl"] / step["magistral"], 2),
    }


def sft(size: str, seed: int, out: Path) -> None:
    changes = [f"--set={change}" for change in (*SIZES[size], f"seed={seed}")]
    subprocess.run([sys.executable, "-m", "magistral", "sft", str(RECIPE), "--out", str(out), *changes], check=True)


def newest(run: Path) -> Path:
    from magistral.models.find import model_path

    return model_path(str(run))


def checkpoints(job: Job) -> list[Path]:
    out = Path(job.out)
    found = out.glob("checkpoint-*") if job.who == "trl" else (out / "checkpoints").glob("*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def probe(who: str, setting: str, size: str, seed: int, start: Path) -> float:
    """Seconds of a step."""
    with tempfile.TemporaryDirectory() as out:
        told = in_a_process(Job(who, setting, size, seed, str(newest(start)), f"{out}/run", PROBE))
    steps = told["each_step"][1:]
    return round(median(steps), 3)


def in_a_process(job: Job) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return {"setting": job.setting, **result}


def child(job: Job) -> None:
    import torch

    from magistral.recipe import load_recipe

    torch.set_num_threads(2 if job.setting == "2 threads" else 1)
    changes = [f"seed={job.seed}", f"rl.steps={job.n_steps}", f"rl.checkpoint_every={EVERY}", "rl.keep_checkpoints=1000"]
    if job.setting == "generator and trainer":
        changes.append("runtime.kind=ray")
    recipe = load_recipe(RECIPE, (*SIZES[job.size], *changes))
    marks = (run_trl if job.who == "trl" else run_magistral)(recipe, job.start, Path(job.out))
    each = [round(b - a, 3) for a, b in pairwise(marks)]
    at = [round(mark - marks[0], 2) for mark in marks[EVERY::EVERY]]
    print("RESULT " + json.dumps({"seconds": at, "each_step": each}))


def run_magistral(recipe: Any, start: str, out: Path) -> list[float]:
    """The time at the beginning and after each step."""
    import torch

    from magistral.cli.wiring import load, scorer_of
    from magistral.log import open_run
    from magistral.pipeline.make import Ingredients
    from magistral.pipeline.run import run_rl

    model, tokenizer, train, _ = load("RL", recipe, start, torch.get_num_threads())
    ingredients = Ingredients(recipe, recipe.rl, model, tokenizer, partial(scorer_of, recipe, tokenizer))
    with open_run(out, recipe, stage="rl", model=start, resume=False) as run:
        marks = [time.perf_counter()]
        run_rl(ingredients, train, run, on_step=lambda _: marks.append(time.perf_counter()))
    return marks


def run_trl(recipe: Any, start: str, out: Path) -> list[float]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from magistral.cli.wiring import load, prompter, scorer_of
    from magistral.flow import Completion, Finish

    _, ours, train, _ = load("RL", recipe, start, torch.get_num_threads())
    tokenizer, prompt_of, rl = AutoTokenizer.from_pretrained(start), prompter(recipe, ours), recipe.rl
    prompts = [prompt_of(problem) for problem in train]
    texts = [ours.decode(prompt) for prompt in prompts]
    assert [tokenizer(text)["input_ids"] for text in texts] == [list(prompt) for prompt in prompts], "the same prompts"
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    with scorer_of(recipe, ours) as scorer:

        def paid(tokens: list[int], index: int) -> float:
            stopped = tokens[-1:] == [ours.eos]
            completion = Completion(
                problem=train[index], group=0, index=0, seed=0, prompt_tokens=prompts[index], tokens=tuple(tokens), logprobs=(),
                versions=(), text=ours.decode(tokens[:-1] if stopped else tokens),
                finish=Finish.STOP if stopped else Finish.LENGTH,
            )  # fmt: skip
            return float(scorer.score(completion).reward.total)

        def reward(completion_ids: list[list[int]], index: list[int], **_: Any) -> list[float]:
            return [paid(tokens, i) for tokens, i in zip(completion_ids, index, strict=True)]

        config = GRPOConfig(
            output_dir=str(out), per_device_train_batch_size=rl.n_batch, num_generations=rl.group_size, max_steps=rl.steps,
            max_completion_length=rl.max_tokens, learning_rate=rl.lr, lr_scheduler_type="constant", adam_beta1=rl.betas[0],
            adam_beta2=rl.betas[1], max_grad_norm=rl.max_grad_norm, epsilon=rl.eps_low, epsilon_high=rl.eps_high, beta=0.0,
            temperature=rl.temperature, scale_rewards="batch", use_cpu=True, bf16=False, gradient_checkpointing=False,
            save_strategy="steps", save_steps=EVERY, save_total_limit=None, report_to=[], disable_tqdm=True, logging_steps=1000,
            seed=recipe.seed,
        )  # fmt: skip
        GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32),
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": text, "index": i} for i, text in enumerate(texts)]),
            processing_class=tokenizer,
            callbacks=[Clock()],
        ).train()
    return marks


def accuracies(size: str, seed: int, models: list[Path]) -> list[float]:
    """pass@1 on the held-out problems."""
    import torch

    from magistral.cli.held_out import Exam
    from magistral.cli.wiring import load, scorer_of
    from magistral.engines.native.engine import NativeEngine
    from magistral.models.load import load_model
    from magistral.recipe import load_recipe

    recipe = load_recipe(RECIPE, (*SIZES[size], f"seed={seed}"))
    model, tokenizer, _, held_out = load("measuring", recipe, str(models[0]), 2)
    engine = NativeEngine(model, tokenizer.eos, n_slots=128, window=recipe.model.window)
    found = []
    with scorer_of(recipe, tokenizer) as scorer, torch.no_grad():
        exam = Exam(recipe, engine, tokenizer, held_out, scorer)
        for version, path in enumerate(models, 1):
            weights = dict(load_model(str(path))[0].named_parameters())
            found.append(round(exam.solved(weights, version, on_written=lambda _: None), 4))
    return found


if __name__ == "__main__":
    main()

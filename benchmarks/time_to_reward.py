"""Seconds of RL until prompts that were not trained on are paid as much: ours, and TRL's GRPOTrainer on the same CPU.

    .venv/bin/python benchmarks/time_to_reward.py            (needs the extras "bench" and "ray"; about 45 minutes)

Both begin with the same new weights, ask the same prompts (as long as a system prompt and a question are), pay the share of
letters in the text, and take steps of as many completions at the same learning rate, with the same clip and no KL term. Each
first takes a few steps in every setting of threads it has, and runs in the quickest; ours in one process takes turns (n_async =
n_batch), in two it does not (2 n_batch). The clock runs from the call that trains to the writing of a checkpoint; checkpoints are
measured afterwards. Without a system prompt ("short") ours has less to save.
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
from typing import Any, NamedTuple

from common import child_result, load_average, versions, write_results

RECIPE = Path(__file__).parents[1] / "recipes" / "nano.toml"
LARGER = ("model.scratch.dim=256", "model.scratch.n_layers=8", "model.scratch.hidden_dim=768")
CASES = {"1 M": (), "6 M": LARGER, "1 M, short": ()}
"""Changes of the recipe."""
SETTINGS = {"trl": ("1 thread", "2 threads"), "magistral": ("1 thread", "2 threads", "generator and trainer")}
SYSTEM = "Think aloud before you answer, in the language of the question, and be sure of each step. " * 5
"""Some 450 tokens, which are bytes here; Magistral's own system prompt has about as many."""
N_PROMPTS, N_HELD_OUT, N_RUNS = 512, 32, 4
GROUP, N_BATCH, NEW, LR = 16, 32, 64, 2e-3
GOAL = 0.6
"""Mean reward; the first weights get 0.2."""
EVERY = 2
"""Steps between checkpoints."""
N_STEPS = {"trl": 16, "magistral": 24}
"""At most; enough for the goal."""
PROBE = 4
"""Steps in each setting, the first of which is left out."""


class Job(NamedTuple):
    """A run in a process of its own."""

    who: str
    setting: str
    case: str
    seed: int
    start: str
    """The model's folder."""
    out: str
    n_steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", choices=list(CASES), nargs="+", default=list(CASES), help="the result has these alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(Job(*json.loads(args.child)))
        return
    found = {case: compared(case, args.seeds) for case in args.cases}
    about = {"versions": versions("torch", "transformers", "trl", "ray"), "load_average_at_end": load_average()}
    what = {"group": GROUP, "n_batch": N_BATCH, "max_new_tokens": NEW, "lr": LR, "system_prompt_tokens": len(SYSTEM)}
    write_results("time_to_reward", {**about, "seeds": args.seeds, **what, "goal": GOAL, "every": EVERY, "cases": found})


def compared(case: str, seeds: list[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        starts = {seed: begin(case, seed, Path(folder) / f"start-{seed}") for seed in seeds}
        probes = {
            who: {s: probe(Job(who, s, case, seeds[0], starts[seeds[0]], "", PROBE)) for s in settings}
            for who, settings in SETTINGS.items()
        }
        print(case, probes, flush=True)
        quickest = {who: min(seconds, key=seconds.__getitem__) for who, seconds in probes.items()}
        runs: dict[str, list[dict[str, Any]]] = {who: [] for who in SETTINGS}
        for seed in seeds:
            for who, setting in quickest.items():
                runs[who].append(measured(Job(who, setting, case, seed, starts[seed], f"{folder}/{who}-{seed}", N_STEPS[who])))
                print(case, who, seed, runs[who][-1], flush=True)
    pairs = zip(runs["trl"], runs["magistral"], strict=True)
    reached = [(theirs["reached_s"], ours["reached_s"]) for theirs, ours in pairs]
    ratios = [round(theirs / ours, 2) for theirs, ours in reached if theirs and ours]  # of the runs in which both got there
    step = {who: fmean(s for run in told for s in run["each_step"][1:]) for who, told in runs.items()}
    return {
        "seconds_a_step": probes,
        "runs": runs,
        "got_there": {who: sum(run["reached_s"] is not None for run in told) for who, told in runs.items()},
        "times_as_fast_to_the_goal": ratios,
        "median": median(ratios) if ratios else None,
        "times_as_fast_a_step": round(step["trl"] / step["magistral"], 2),
    }


def begin(case: str, seed: int, folder: Path) -> str:
    from magistral.models.load import load_recipe_model, save_model

    model, tokenizer = load_recipe_model(recipe_of(case, seed).model, seed)
    folder.mkdir()
    save_model(folder, model, tokenizer, model.named_parameters())
    return str(folder)


def recipe_of(case: str, seed: int, *changes: str) -> Any:
    from magistral.recipe import load_recipe

    rl = {"group_size": GROUP, "n_batch": N_BATCH, "n_minibatch": N_BATCH, "n_async": N_BATCH, "max_tokens": NEW, "lr": LR}
    usual = [f"rl.{name}={value}" for name, value in rl.items()]
    return load_recipe(RECIPE, (*CASES[case], *usual, f"seed={seed}", "model.window=704", f"reward.l_max={NEW}", *changes))


def probe(job: Job) -> float:
    """Seconds of a step."""
    with tempfile.TemporaryDirectory() as out:
        return round(fmean(in_a_process(job._replace(out=f"{out}/run"))["each_step"][1:]), 3)


def measured(job: Job) -> dict[str, Any]:
    told = in_a_process(job)
    found = Path(job.out).glob("checkpoint-*") if job.who == "trl" else (Path(job.out) / "checkpoints").glob("*")
    models = sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
    rewards = held_out_rewards(job, models)
    reached = next((s for s, r in zip(told["seconds"], rewards, strict=True) if r >= GOAL), None)
    return {"setting": job.setting, **told, "held_out_reward": rewards, "reached_s": reached}


def in_a_process(job: Job) -> dict[str, Any]:
    return child_result(__file__, "--child", json.dumps(job))


def child(job: Job) -> None:
    import torch

    torch.set_num_threads(2 if job.setting == "2 threads" else 1)
    changes = [f"rl.steps={job.n_steps}", f"rl.checkpoint_every={EVERY}", "rl.keep_checkpoints=1000"]
    if job.setting == "generator and trainer":
        changes += ["runtime.kind=ray", f"rl.n_async={2 * N_BATCH}"]
    recipe = recipe_of(job.case, job.seed, *changes)
    marks = (run_trl if job.who == "trl" else run_magistral)(job, recipe)
    at = [round(mark - marks[0], 2) for mark in marks[EVERY::EVERY]]
    print("RESULT " + json.dumps({"seconds": at, "each_step": [round(b - a, 3) for a, b in pairwise(marks)]}))


def questions(case: str, first: int, n: int) -> list[str]:
    system = "" if case.endswith("short") else SYSTEM
    return [f"{system}Tell me a short story about a town with {first + i} bridges." for i in range(n)]


def letters(text: str) -> float:
    return sum(c.isalpha() for c in text) / max(len(text), 1)


def score(completion: Any) -> Any:
    from magistral.flow import Outcome, Reward, Scored, Trace, Verdict

    verdict = Verdict(outcome=Outcome.WRONG, reason="benchmark")
    trace = Trace(thinking="", summary="", well_formed=True)
    return Scored(completion=completion, trace=trace, verdict=verdict, reward=Reward(correctness=letters(completion.text)))


def run_magistral(job: Job, recipe: Any) -> list[float]:
    """The time at the beginning and after each step."""
    from magistral.flow import Problem
    from magistral.log import open_run
    from magistral.models.load import load_model
    from magistral.pipeline.make import Ingredients
    from magistral.pipeline.run import run_rl

    model, tokenizer = load_model(job.start)
    problems = [Problem(id=str(i), question=q, reference="") for i, q in enumerate(questions(job.case, 0, N_PROMPTS))]
    ingredients = Ingredients(recipe, recipe.rl, model, tokenizer, lambda: nullcontext(SimpleNamespace(score=score)))
    with open_run(Path(job.out), recipe, stage="rl", model=job.start, resume=False) as run:
        marks = [time.perf_counter()]
        run_rl(ingredients, problems, run, on_step=lambda _: marks.append(time.perf_counter()))
    return marks


def run_trl(job: Job, recipe: Any) -> list[float]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from magistral.models.load import load_model
    from magistral.text.template import problem_tokens

    tokenizer, rl = AutoTokenizer.from_pretrained(job.start), recipe.rl
    _, ours = load_model(job.start)
    prompts = [problem_tokens(ours, recipe.prompt, question) for question in questions(job.case, 0, N_PROMPTS)]
    texts = [ours.decode(prompt) for prompt in prompts]
    assert [tokenizer(text)["input_ids"] for text in texts] == [list(prompt) for prompt in prompts], "the same prompts"
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [letters(ours.decode(ids[:-1] if ids[-1:] == [ours.eos] else ids)) for ids in completion_ids]

    config = GRPOConfig(
        output_dir=job.out, per_device_train_batch_size=rl.n_batch, num_generations=rl.group_size, max_steps=rl.steps,
        max_completion_length=rl.max_tokens, learning_rate=rl.lr, lr_scheduler_type="constant", adam_beta1=rl.betas[0],
        adam_beta2=rl.betas[1], max_grad_norm=rl.max_grad_norm, epsilon=rl.eps_low, epsilon_high=rl.eps_high, beta=0.0,
        temperature=rl.temperature, scale_rewards="batch", use_cpu=True, bf16=False, gradient_checkpointing=False,
        save_strategy="steps", save_steps=EVERY, report_to=[], disable_tqdm=True, logging_steps=1000, seed=recipe.seed,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.start, dtype=torch.float32),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    begun = time.perf_counter()
    trainer.train()
    return [begun, *marks]


def held_out_rewards(job: Job, models: list[Path]) -> list[float]:
    """The mean of some completions of prompts that were not trained on, by each of the models."""
    from magistral.engines.base import Request
    from magistral.engines.native.engine import NativeEngine
    from magistral.models.load import load_model
    from magistral.text.template import problem_tokens

    recipe, rewards = recipe_of(job.case, job.seed), []
    for path in models:
        model, tokenizer = load_model(str(path))
        engine = NativeEngine(model, tokenizer.eos, n_slots=128, window=recipe.model.window)
        for i, question in enumerate(questions(job.case, N_PROMPTS, N_HELD_OUT)):
            prompt = problem_tokens(tokenizer, recipe.prompt, question)
            engine.submit(Request(prompt=prompt, seeds=tuple(range(N_RUNS)), max_tokens=NEW, temperature=1.0, key=i))
        done = []
        while not engine.idle:
            done += engine.step()
        texts = [tokenizer.decode(w.tokens[:-1] if w.finish == "stop" else w.tokens) for w in done]
        rewards.append(round(fmean(map(letters, texts)), 4))
    return rewards


if __name__ == "__main__":
    main()

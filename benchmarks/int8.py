"""What 8-bit weights cost in exactness: KL divergence from float32, nats a token, on completions that float32 wrote.

    .venv/bin/python benchmarks/int8.py [--model MODEL]

The 8-bit engine is told the same tokens and gives its own log-probability of each; the mean difference estimates the divergence.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

import torch
from common import versions, write_results

from magistral.curation import problems
from magistral.engines.base import Request, Written
from magistral.engines.native.engine import NativeEngine
from magistral.models.load import load_model
from magistral.recipe import load_recipe
from magistral.text.template import problem_tokens

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = load_recipe(RECIPE)
    model, tokenizer = load_model(args.model)
    requests = [
        Request(
            prompt=problem_tokens(tokenizer, recipe.prompt, problem.question),
            seeds=(args.seed + i,),
            max_tokens=64,
            key=i,
        )
        for i, problem in enumerate(problems(recipe.problems)[0][: args.completions])
    ]
    exact = written_by(NativeEngine(model, tokenizer.eos, n_slots=args.completions, window=192), requests)
    rounded = NativeEngine(model, tokenizer.eos, n_slots=args.completions, window=192, weights="int8")
    for request in requests:
        rounded.submit(request)
        rounded.force(request.key, 0, exact[request.key].tokens)
    told = written_by(rounded, [])
    gaps = [p - q for key, w in exact.items() for p, q in zip(w.logprobs, told[key].logprobs, strict=True)]
    result = {"kl_nats_per_token": round(fmean(gaps), 5), "standard_error": round(stdev(gaps) / len(gaps) ** 0.5, 5)}
    print(result, len(gaps))
    write_results(
        "int8", {"versions": versions("torch"), "model": args.model, "seed": args.seed, "n_tokens": len(gaps), **result}
    )


def written_by(engine: NativeEngine, requests: list[Request]) -> dict[object, Written]:
    for request in requests:
        engine.submit(request)
    done: list[Written] = []
    while not engine.idle:
        done += engine.step()
    return {w.request.key: w for w in done}


if __name__ == "__main__":
    main()

"""What 8-bit weights cost in exactness: divergence and perplexity on what float32 wrote, and how many greedy answers stay.

    .venv/bin/python benchmarks/int8.py [--model MODEL]

The 8-bit engine is told float32's tokens and gives its own log-probability of each; the mean difference estimates the KL
divergence in nats a token. Perplexities are of the same tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

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
    parser.add_argument("--completions", type=int, default=200)
    parser.add_argument("--new", type=int, default=48, help="tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = load_recipe(RECIPE)
    model, tokenizer = load_model(args.model)
    exact, rounded = (NativeEngine(model, tokenizer.eos, n_slots=64, window=256, weights=form) for form in ("float32", "int8"))
    drawn = [
        Request(
            prompt=problem_tokens(tokenizer, recipe.prompt, problem.question),
            seeds=(args.seed + i,),
            max_tokens=args.new,
            key=i,
        )
        for i, problem in enumerate(problems(recipe.problems)[0][: args.completions])
    ]
    likeliest = [replace(request, temperature=0.0) for request in drawn]
    result = {
        **divergence(write(exact, drawn), rounded),
        **agreement(write(exact, likeliest), write(rounded, likeliest)),
    }
    print(result)
    write_results("int8", {"versions": versions("torch"), **vars(args), **result})


def write(engine: NativeEngine, requests: Sequence[Request]) -> list[Written]:
    """A completion of each, and of what is in already, by their keys."""
    for request in requests:
        engine.submit(request)
    done: list[Written] = []
    while not engine.idle:
        done += engine.step()
    return sorted(done, key=lambda w: int(str(w.request.key)))


def divergence(exact: list[Written], rounded: NativeEngine) -> dict[str, Any]:
    for written in exact:
        rounded.submit(written.request)
        rounded.force(written.request.key, 0, written.tokens)
    told = write(rounded, [])
    pairs = [pair for one, other in zip(exact, told, strict=True) for pair in zip(one.logprobs, other.logprobs, strict=True)]
    gaps = [p - q for p, q in pairs]
    return {
        "n_tokens": len(gaps),
        "kl_nats_per_token": round(fmean(gaps), 5),
        "standard_error": round(stdev(gaps) / len(gaps) ** 0.5, 5),
        "perplexity": {form: round(exp(-fmean(pair[i] for pair in pairs)), 4) for i, form in enumerate(("float32", "int8"))},
    }


def agreement(exact: list[Written], rounded: list[Written]) -> dict[str, float]:
    pairs = [(one.tokens, other.tokens) for one, other in zip(exact, rounded, strict=True)]
    alike = [next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair))) for pair in pairs]
    return {
        "greedy_answers": len(pairs),
        "greedy_the_same": round(fmean(a == b for a, b in pairs), 3),
        "greedy_first_token_the_same": round(fmean(n > 0 for n in alike), 3),
        "greedy_tokens_alike_at_the_start": round(fmean(alike), 1),
    }


if __name__ == "__main__":
    main()

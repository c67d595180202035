"""What 8-bit weights cost in exactness: KL divergence from float32, nats a token, on completions that float32 wrote.

    .venv/bin/python benchmarks/int8.py [--model MODEL]

Two forms are measured on the same tokens: the engine's own (prompts in float32 products of the 8-bit weights), and one that
rounds the prompts' activations too, which shows why the engine does not.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from common import versions, write_results
from torch import Tensor

from magistral.curation import problems
from magistral.engines.base import Request, Written
from magistral.engines.native.cache import Cache, Decode, Prefill
from magistral.engines.native.engine import NativeEngine
from magistral.engines.native.int8 import Int8Linear, quantise_linears
from magistral.models.load import load_model
from magistral.models.transformer import Transformer
from magistral.recipe import load_recipe
from magistral.text.template import problem_tokens

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.toml"


class RoundedPrompts(Int8Linear):
    """8-bit products for prompts as well."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, False)  # noqa: FBT003
        return out


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
    engine = NativeEngine(model, tokenizer.eos, n_slots=args.completions, window=192)
    for i, problem in enumerate(problems(recipe.problems)[0][: args.completions]):
        prompt = problem_tokens(tokenizer, recipe.prompt, problem.question)
        engine.submit(Request(prompt=prompt, seeds=(args.seed + i,), max_tokens=64, key=i))
    written: list[Written] = []
    while not engine.idle:
        written += engine.step()
    exact = logprobs(model, written)
    rounded = copy.deepcopy(model)
    quantise_linears(rounded)
    found = {"as the engine does": kl(exact, logprobs(rounded, written), written)}
    for module in rounded.modules():
        if isinstance(module, Int8Linear):
            module.__class__ = RoundedPrompts
    found["prompts rounded too"] = kl(exact, logprobs(rounded, written), written)
    n_tokens = sum(len(w.tokens) for w in written)
    print(found, n_tokens)
    write_results(
        "int8",
        {
            "versions": versions("torch"),
            "model": args.model,
            "seed": args.seed,
            "n_tokens": n_tokens,
            "kl_nats_per_token": {name: round(value, 5) for name, value in found.items()},
        },
    )


@torch.inference_mode()
def logprobs(model: Transformer, written: list[Written]) -> list[Tensor]:
    """[B, V] before each place of the completions, one token a step as the engine writes them."""
    B = len(written)
    cache = Cache(model.sizes, B, device=torch.device("cpu"))
    longest = max(len(w.request.prompt) for w in written)
    cache.reserve(longest + max(len(w.tokens) for w in written))
    prompts = torch.tensor([[*w.request.prompt, *[0] * (longest - len(w.request.prompt))] for w in written])
    hidden = model(prompts, torch.arange(longest)[None].expand(B, -1), Prefill(cache, slice(0, B), torch.arange(B)))
    cache.lengths[:] = torch.tensor([len(w.request.prompt) for w in written])
    out = [model.lm_head(hidden[torch.arange(B), cache.lengths - 1]).log_softmax(-1)]
    for t in range(max(len(w.tokens) for w in written) - 1):
        tokens = torch.tensor([[w.tokens[min(t, len(w.tokens) - 1)]] for w in written])
        hidden = model(tokens, cache.lengths[:, None], Decode(cache, B))
        cache.lengths += 1
        out.append(model.lm_head(hidden[:, 0]).log_softmax(-1))
    return out


def kl(exact: list[Tensor], other: list[Tensor], written: list[Written]) -> float:
    total, n = 0.0, 0
    for t, (p, q) in enumerate(zip(exact, other, strict=True)):
        there = torch.tensor([t < len(w.tokens) for w in written])
        total += float((p[there].exp() * (p[there] - q[there])).sum())
        n += int(there.sum())
    return total / n


if __name__ == "__main__":
    main()

"""Tokens per second of the native engine against `transformers` generate, and llama.cpp where it is installed: one run.

    .venv/bin/python benchmarks/engine.py            (needs the extra "bench")

Every contender writes `--new` tokens after each of B prompts, greedily, prompts included. Contenders take turns within a
repeat, so that what else the machine does hits them alike; medians over the repeats. Beside them: what the machine could do at
most, what a step's time goes to, what a shared prompt costs, and the smallest recipe's model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from common import load_average, versions, write_results
from engine_peers import Contender, llamacpp, peer

from magistral.engines.native import engine as engine_module
from magistral.engines.native import kernels, quick
from magistral.engines.native.engine import NativeEngine, Request
from magistral.engines.native.linears import Form, Int8Matrix, Matrix, PackedMatrix
from magistral.models.load import load_model, load_recipe_model
from magistral.models.transformer import Transformer
from magistral.recipe import load_recipe

NANO = Path(__file__).parents[1] / "recipes" / "nano.toml"
Rates = dict[str, dict[str, list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=128, help="tokens")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, _ = load_model(args.model)
    n_slots, window = max(*args.batches, 16), max(args.prompt + args.new, 640)
    engines = {
        form: NativeEngine(model, -1, n_slots=n_slots, window=window, weights=form, prefix_mb=0) for form in ("float32", "int8")
    }
    contenders = {"transformers float32": peer(model), **{f"native {form}": native(engine) for form, engine in engines.items()}}
    with tempfile.TemporaryDirectory() as folder:
        if find_spec("llama_cpp"):
            contenders |= {
                f"llama.cpp {k}": llamacpp(args.model, Path(folder), k, n_slots, args.threads) for k in ("F16", "Q8_0")
            }
        prompts = {b: torch.randint(100, model.sizes.n_words, (b, args.prompt)).tolist() for b in args.batches}
        rates = race(contenders, prompts, args.new, args.repeats)
    result = {
        "versions": versions("torch", "numba", "transformers", *(["llama-cpp-python"] if find_spec("llama_cpp") else [])),
        **vars(args),
        **summary(rates),
        "machine_limit_tokens_per_s": limits(model, args.batches, args.prompt, args.new),
        "decode_step_at_32": {form: step_of(engine, model.sizes.n_words) for form, engine in engines.items()},
        "group_of_16_sharing_512_tokens": shared_prompt(model),
        "nano": nano(args.repeats),
        "load_average_at_end": load_average(),
    }
    write_results("engine", result)


def race(contenders: dict[str, Contender], prompts: dict[int, list[list[int]]], n_new: int, repeats: int) -> Rates:
    """Tokens a second of each, by batch."""
    rates: Rates = {name: {} for name in contenders}
    for batch, asked in prompts.items():
        for write in contenders.values():
            write(asked, 4)  # warm-up
        for repeat in range(repeats):
            for name, write in contenders.items():
                start = time.perf_counter()
                write(asked, n_new)
                rates[name].setdefault(str(batch), []).append(batch * n_new / (time.perf_counter() - start))
                print(f"batch {batch:3} repeat {repeat} {name:22} {rates[name][str(batch)][-1]:8.1f} tokens/s", flush=True)
    return rates


def middle_and_spread(rates: Rates) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
    """The median, and the least and the most, of each contender by batch."""
    middle = {name: {b: round(median(r), 1) for b, r in by.items()} for name, by in rates.items()}
    return middle, {name: {b: [round(min(r), 1), round(max(r), 1)] for b, r in by.items()} for name, by in rates.items()}


def summary(rates: Rates) -> dict[str, Any]:
    middle, spread = middle_and_spread(rates)
    base = middle["transformers float32"]
    ratios = {name: {b: round(r / base[b], 2) for b, r in by.items()} for name, by in middle.items()}
    for name, by in ratios.items():
        print(f"{name:22}", {b: f"{middle[name][b]} ({ratio} x)" for b, ratio in by.items()})
    return {"tokens_per_s": middle, "least_and_most": spread, "ratio_to_transformers": ratios}


def native(engine: NativeEngine) -> Contender:
    def write(prompts: list[list[int]], n_new: int) -> None:
        for i, prompt in enumerate(prompts):
            engine.submit(Request(prompt=tuple(prompt), seeds=(i,), max_tokens=n_new, temperature=0.0, key=i))
        while not engine.idle:
            engine.step()

    return write


def seconds(work: Callable[[], object], n: int) -> float:
    """The least of `n` times: what the machine can do."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def limits(model: Transformer, batches: list[int], n_prompt: int, n_new: int) -> dict[str, Any]:
    """Float32: a step reads every weight once and multiplies it for each row; a prompt is bound by products alone."""
    many, square = torch.ones(2**26), torch.ones(2048, 2048)
    bytes_per_s = 4 * many.numel() / seconds(many.sum, 8)
    flops = 2 * 2048**3 / seconds(lambda: square @ square, 5)
    n = model.sizes.n_parameters
    heads = model.sizes.n_words * model.sizes.dim
    step_s = {b: max(4 * n / bytes_per_s, 2 * n * b / flops) for b in batches}
    prompt_s = {b: 2 * (n - heads) * b * n_prompt / flops for b in batches}
    return {
        "read_gb_per_s": round(bytes_per_s / 1e9, 1),
        "product_gflop_per_s": round(flops / 1e9, 1),
        **{str(b): round(b * n_new / (prompt_s[b] + n_new * step_s[b]), 1) for b in batches},
    }


def step_of(engine: NativeEngine, n_words: int, batch: int = 32) -> dict[str, Any]:
    """Milliseconds of a step that writes a token of each row, what they go to, and the share that is neither matrix product nor
    attention."""
    batch = min(batch, engine.n_slots)
    for i in range(batch):
        prompt = torch.randint(100, n_words, (128,)).tolist()
        engine.submit(Request(prompt=tuple(prompt), seeds=(i,), max_tokens=100, temperature=0.0, key=i))
    while any(not w.tokens for w in engine.partial()) or not engine.partial():
        engine.step()
    step_ms = seconds(engine.step, 10) * 1e3
    n_timed = 10
    with timed_parts() as spent:
        start = time.perf_counter()
        for _ in range(n_timed):
            engine.step()
        spent["all"] = time.perf_counter() - start
    for i in range(batch):
        engine.cancel(i)
    spent["the rest, as Python"] = 2 * spent["all"] - sum(spent.values())
    parts = {name: round(s / n_timed * 1e3, 2) for name, s in spent.items() if name != "all"}
    paid = (spent["products"] + spent["attention"]) / spent["all"]
    result = {"ms": round(step_ms, 1), "parts_ms": parts, "overhead_share": round(1 - paid, 3)}
    print("a step at", batch, result)
    return result


PARTS: tuple[tuple[str, Any, str], ...] = (
    *(("products", kind, "product") for kind in (Matrix, PackedMatrix, Int8Matrix)),
    ("attention", quick._Step, "attend_together"),
    ("normalising", kernels, "add_and_normalise"),
    ("rows in parts", kernels, "rows_in_parts"),
    ("turning and storing", kernels, "turn_and_store"),
    ("gating", kernels, "gated"),
    ("drawing", engine_module, "choose"),
)


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Seconds that each part of a step takes meanwhile: its functions in PARTS are timed from outside."""
    spent = dict.fromkeys([name for name, _, _ in PARTS], 0.0)

    def timed(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            out = own(*args)
            spent[name] += time.perf_counter() - start
            return out

        return call

    attention = kernels.attention
    with ExitStack() as stack:
        stack.enter_context(patch.object(kernels, "attention", lambda head_dim: timed("attention", attention(head_dim))))
        for name, home, function in PARTS:
            stack.enter_context(patch.object(home, function, timed(name, getattr(home, function))))
        yield spent


def shared_prompt(model: Transformer) -> dict[str, float]:
    """Seconds to the second token of one, and of a group of 16."""
    engine = NativeEngine(model, -1, n_slots=16, window=640)

    def write(n: int) -> float:
        prompt = tuple(torch.randint(100, model.sizes.n_words, (512,)).tolist())
        engine.submit(Request(prompt=prompt, seeds=tuple(range(n)), max_tokens=2, temperature=0.0))
        start = time.perf_counter()
        while not engine.idle:
            engine.step()
        return time.perf_counter() - start

    write(16)
    one, group = median(write(1) for _ in range(3)), median(write(16) for _ in range(3))
    return {"one_s": round(one, 3), "group_s": round(group, 3), "ratio": round(group / one, 2)}


def nano(repeats: int) -> dict[str, Any]:
    recipe = load_recipe(NANO)
    model, _ = load_recipe_model(recipe.model, recipe.seed)
    form: Form = "float32"
    contenders = {
        "transformers float32": peer(model),
        "native float32": native(NativeEngine(model, -1, n_slots=64, window=96, weights=form, prefix_mb=0)),
    }
    prompts = {b: torch.randint(0, 250, (b, 24)).tolist() for b in (1, 8, 64)}
    for write in contenders.values():
        write(prompts[64], 64)  # the cache has its full size
    return summary(race(contenders, prompts, 64, repeats))


if __name__ == "__main__":
    main()

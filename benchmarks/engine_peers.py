"""Other engines on the same weights, for benchmarks/engine.py; run by itself, ours against llama.cpp alone.

    .venv/bin/python benchmarks/engine_peers.py            (needs the extras "bench" and "llamacpp")

Q4_1 is the small model's own file, from which all the others are made. Contenders take turns within a repeat; medians.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from magistral.engines.llamacpp import BATCH, _Context
from magistral.engines.native.engine import NativeEngine
from magistral.models.convert import convert, plan_conversion
from magistral.models.find import model_path
from magistral.models.load import load_model
from magistral.models.transformer import Transformer

Contender = Callable[[list[list[int]], int], None]
"""Writes so many tokens after each prompt."""


def peer(model: Transformer) -> Contender:
    """`transformers` with the same weights."""
    hf: Any = to_transformers(model)

    def write(prompts: list[list[int]], n_new: int) -> None:
        tokens = torch.tensor(prompts)
        with torch.inference_mode():
            hf.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=n_new,
                min_new_tokens=n_new,
                pad_token_id=0,
            )

    return write


def llamacpp(model: str, folder: Path, kind: str, n_slots: int, n_threads: int) -> Contender:
    """llama.cpp's own batch interface, and the likeliest token by numpy. `kind` empty: the model's file as it is."""
    file = model_path(model)
    if kind:
        file = folder / f"{kind}.gguf"
        convert(plan_conversion(model_path(model), file, kind=kind), file, lambda n: None)
    context = _Context(file, n_slots, 256, n_threads=n_threads, n_gpu_layers=0)

    def write(prompts: list[list[int]], n_new: int) -> None:
        rows = range(len(prompts))
        last = [_read(context, prompt, row) for row, prompt in enumerate(prompts)]
        for t in range(n_new - 1):
            places = [len(prompt) + t for prompt in prompts]
            last = [int(np.argmax(logits)) for logits in context.decode(last, places, rows, wanted=rows)]
        for row in rows:
            context.forget(row)

    return write


def _read(context: _Context, prompt: list[int], row: int) -> int:
    for start in range(0, len(prompt), BATCH):
        part = prompt[start : start + BATCH]
        logits = context.decode(part, range(start, start + len(part)), [row] * len(part), wanted=[len(part) - 1])
    return int(np.argmax(logits[0]))


def main() -> None:
    from common import load_average, versions, write_results
    from engine import middle_and_spread, native, race

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=128, help="tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, _ = load_model("smollm2")
    n_slots = max(args.batches)
    contenders = {
        f"native {form}": native(NativeEngine(model, -1, n_slots=n_slots, window=256, weights=form, prefix_mb=0))
        for form in ("float32", "int8")
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in {"Q4_1": "", "F16": "F16", "Q8_0": "Q8_0"}.items():
            contenders[f"llama.cpp {name}"] = llamacpp("smollm2", Path(folder), kind, n_slots, args.threads)
        prompts = {b: torch.randint(100, model.sizes.n_words, (b, args.prompt)).tolist() for b in args.batches}
        rates = race(contenders, prompts, args.new, args.repeats)
    middle, spread = middle_and_spread(rates)
    ratios = {
        name: {
            b: round(rate / max(by[b] for who, by in middle.items() if who.startswith("llama.cpp")), 2) for b, rate in by.items()
        }
        for name, by in middle.items()
        if name.startswith("native")
    }
    print(middle, ratios, sep="\n")
    known = versions("torch", "llama-cpp-python")
    result = {"tokens_per_s": middle, "least_and_most": spread, "ratio_to_the_best_llama_cpp": ratios}
    write_results("engine_peers", {"versions": known, **vars(args), **result, "load_average_at_end": load_average()})


def to_transformers(model: Transformer) -> transformers.PreTrainedModel:
    s = model.sizes
    config = transformers.LlamaConfig(
        vocab_size=s.n_words, hidden_size=s.dim, intermediate_size=s.hidden_dim, num_hidden_layers=s.n_layers,
        num_attention_heads=s.n_heads, num_key_value_heads=s.n_kv_heads, rms_norm_eps=s.norm_eps, tie_word_embeddings=s.tied,
        max_position_embeddings=s.window, rope_parameters={"rope_type": "default", "rope_theta": s.rope_theta},
    )  # fmt: skip
    hf: transformers.PreTrainedModel = transformers.LlamaForCausalLM(config)
    hf.eval()  # type: ignore[no-untyped-call]
    weights = {(n if n.startswith("lm_head") else f"model.{n}"): p.detach() for n, p in model.named_parameters()}
    missing, unexpected = hf.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    return hf


if __name__ == "__main__":
    main()

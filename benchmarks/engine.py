"""Tokens per second of the native engine against `transformers` generate: same model, prompts and lengths, one run.

    .venv/bin/python benchmarks/engine.py            (needs the extra "bench")

Every contender writes `--new` tokens after each of B prompts, greedily, prefill included. Contenders take turns within a
repeat, so that what else the machine does hits them alike; medians over the repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import transformers
from common import load_average, versions, write_results

from magistral.engines.native.engine import NativeEngine, Request
from magistral.models.load import load_model
from magistral.models.transformer import Transformer

Contender = Callable[[list[list[int]], int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=128, help="tokens")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, _ = load_model(args.model)
    generator = torch.Generator().manual_seed(args.seed)
    window = args.prompt + args.new
    contenders: dict[str, Contender] = {
        "transformers float32": peer(model),
        "native float32": native(model, "float32", max(args.batches), window),
        "native int8": native(model, "int8", max(args.batches), window),
    }
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
    for batch in args.batches:
        prompts = torch.randint(100, model.sizes.n_words, (batch, args.prompt), generator=generator).tolist()
        for write in contenders.values():
            write(prompts, 4)  # warm-up
        for repeat in range(args.repeats):
            for name, write in contenders.items():
                start = time.perf_counter()
                write(prompts, args.new)
                rates[name].setdefault(str(batch), []).append(batch * args.new / (time.perf_counter() - start))
                print(f"batch {batch:3} repeat {repeat} {name:22} {rates[name][str(batch)][-1]:8.1f} tokens/s", flush=True)
    middle = {name: {b: round(median(r), 1) for b, r in by_batch.items()} for name, by_batch in rates.items()}
    base = middle["transformers float32"]
    ratios = {name: {b: round(r / base[b], 2) for b, r in by_batch.items()} for name, by_batch in middle.items()}
    for name, by_batch in ratios.items():
        print(f"{name:22}", {b: f"{middle[name][b]} ({ratio} x)" for b, ratio in by_batch.items()})
    spread = {name: {b: [round(min(r), 1), round(max(r), 1)] for b, r in by.items()} for name, by in rates.items()}
    write_results(
        "engine",
        {
            "versions": versions("torch", "transformers"),
            "model": args.model,
            "seed": args.seed,
            "threads": args.threads,
            "prompt_tokens": args.prompt,
            "new_tokens": args.new,
            "repeats": args.repeats,
            "load_average_at_end": load_average(),
            "tokens_per_s": middle,
            "least_and_most": spread,
            "ratio_to_transformers": ratios,
        },
    )


def native(model: Transformer, weights: str, n_slots: int, window: int) -> Contender:
    engine = NativeEngine(model, eos=-1, n_slots=n_slots, window=window, weights=weights)  # type: ignore[arg-type]

    def write(prompts: list[list[int]], n_new: int) -> None:
        for i, prompt in enumerate(prompts):
            engine.submit(Request(prompt=tuple(prompt), seeds=(i,), max_tokens=n_new, temperature=0.0, key=i))
        while not engine.idle:
            engine.step()

    return write


def peer(model: Transformer) -> Contender:
    """`transformers` with the same weights."""
    hf = to_transformers(model)

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


def to_transformers(model: Transformer) -> transformers.PreTrainedModel:
    s = model.sizes
    config = transformers.LlamaConfig(
        vocab_size=s.n_words, hidden_size=s.dim, intermediate_size=s.hidden_dim, num_hidden_layers=s.n_layers,
        num_attention_heads=s.n_heads, num_key_value_heads=s.n_kv_heads, rms_norm_eps=s.norm_eps, tie_word_embeddings=s.tied,
        max_position_embeddings=s.window, rope_parameters={"rope_type": "default", "rope_theta": s.rope_theta},
    )  # fmt: skip
    hf = transformers.LlamaForCausalLM(config).eval()
    weights = {(n if n.startswith("lm_head") else f"model.{n}"): p.detach() for n, p in model.named_parameters()}
    missing, unexpected = hf.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    return hf


if __name__ == "__main__":
    main()

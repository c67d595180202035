"""Other engines on the same weights, for benchmarks/engine.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from magistral.engines.llamacpp import BATCH, _Context
from magistral.models.convert import convert, plan_conversion
from magistral.models.find import model_path
from magistral.models.transformer import Transformer

Contender = Callable[[list[list[int]], int], None]
"""Writes so many tokens after each prompt."""


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


def llamacpp(model: str, folder: Path, kind: str, n_slots: int, n_threads: int) -> Contender:
    """llama.cpp's own batch interface, and the likeliest token by numpy."""
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

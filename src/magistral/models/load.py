"""A name in a recipe or on the command line becomes a model with its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from magistral.errors import ModelError
from magistral.models.find import model_path
from magistral.models.sizes import Sizes, check_tensors, sizes_of
from magistral.models.transformer import Transformer, new_transformer
from magistral.models.words import tokenizer_of
from magistral.recipe import Model
from magistral.text.tokens import Tokenizer, byte_tokenizer
from magistral.weights.names import their_name
from magistral.weights.read import Weights, open_weights


def load_model(name: str) -> tuple[Transformer, Tokenizer]:
    """`smollm2`, a GGUF file, a folder in Hugging Face or Mistral format, or a run's folder (its newest checkpoint).
    Weights in float32.

    Raises ModelError saying what is missing or not covered."""
    return _load(model_path(name))


def load_recipe_model(model: Model, seed: int) -> tuple[Transformer, Tokenizer]:
    """The base that a recipe names, which may be a new one."""
    if model.scratch is None:
        return load_model(model.base)
    tokenizer = byte_tokenizer()
    s = model.scratch
    sizes = Sizes(
        family="llama", n_words=tokenizer.n_words, dim=s.dim, n_layers=s.n_layers, n_heads=s.n_heads, n_kv_heads=s.n_kv_heads,
        head_dim=s.dim // s.n_heads, hidden_dim=s.hidden_dim, norm_eps=1e-5, rope_theta=10000.0, window=model.window, tied=True,
    )  # fmt: skip
    return new_transformer(sizes, seed), tokenizer


def save_model(folder: Path, model: Transformer, tokenizer: Tokenizer, weights: Iterable[tuple[str, Tensor]]) -> None:
    """A Hugging Face folder; tied output weights are written once, as the embedding."""
    kept = {n: t for n, t in weights if not (model.sizes.tied and n == "lm_head.weight")}
    eos = {"eos_token_id": tokenizer.eos, "bos_token_id": None}
    named = {their_name(name, "hf"): t.detach().contiguous() for name, t in kept.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**model.sizes.to_config(), **eos}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    tokenizer.save(folder)


def _load(path: Path) -> tuple[Transformer, Tokenizer]:
    weights = open_weights(path)
    sizes = sizes_of(weights)
    check_tensors(sizes, weights)
    tokenizer = tokenizer_of(weights, sizes.n_words)
    return _filled(sizes, weights), tokenizer


def _filled(sizes: Sizes, weights: Weights) -> Transformer:
    """A model that takes the tensors over as they come: memory holds the weights once."""
    with torch.device("meta"):
        model = Transformer(sizes)
    found: dict[str, Tensor] = {}
    for name in sizes.shapes():
        tensor = torch.from_numpy(weights.tensors[name].floats())
        if not tensor.isfinite().all():
            raise ModelError(f"{weights.path}: {name} holds numbers that are not finite: the model is broken")
        found[name] = tensor
    model.load_state_dict(found, strict=False, assign=True)
    if sizes.tied:
        model.lm_head.weight = model.embed_tokens.weight
    model.rope = type(model.rope)(sizes)
    return model

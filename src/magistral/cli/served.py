"""From what a person names to a model that can be served: a folder, a file, an endpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from magistral.cli.wiring import N_THREADS
from magistral.errors import ModelError, UserError

if TYPE_CHECKING:
    from magistral.engines.http import Endpoint
    from magistral.models.transformer import Transformer
    from magistral.recipe import Prompt
    from magistral.serve.model import Served
    from magistral.serve.steering import ServingEngine
    from magistral.text.tokens import Tokenizer

MAX_WINDOW = 4096
"""Tokens of prompt and answer together (chosen: the cache of a small model then stays under a gigabyte)."""
MODELS = (
    "smollm2, a run's folder, a Hugging Face folder, a .gguf file, or an endpoint as NAME=URL (its key is read from the "
    "environment, as MISTRAL_API_KEY or MAGISTRAL_KEY_NAME)."
)
EngineName = Annotated[
    Literal["native", "llamacpp"], typer.Option("--engine", help="What writes the answers of a .gguf file: ours, or llama.cpp.")
]
Window = Annotated[
    int | None,
    typer.Option(min=16, help="Tokens of prompt and answer together.", show_default=f"the model's, at most {MAX_WINDOW}"),
]
Weights = Annotated[Literal["float32", "int8"], typer.Option(help="int8 is faster on a CPU and not quite exact.")]
AsVersion = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="VERSION", help="A version of Magistral Small, as magistral-small-2507: its marks, prompt and advice."
    ),
]


def name_of(model: str) -> str:
    """By which requests ask for it."""
    if found := endpoint(model):
        return found[0]
    return Path(model).resolve().name.removesuffix(".gguf") if "/" in model or model.endswith(".gguf") else model


def endpoint(model: str) -> tuple[str, Endpoint] | None:
    if "=http" not in model:
        return None
    try:
        from magistral.engines.http import endpoint_of
    except ModuleNotFoundError as e:
        raise UserError(f"an endpoint needs the package {e.name}: scripts/install http") from None
    return endpoint_of(model)


def load_served(
    model: str, *, n_slots: int, window: int | None, engine: str = "native",
    weights: Literal["float32", "int8"] = "int8", version: str | None = None, threads: int = N_THREADS,
) -> Served:  # fmt: skip
    """Raises UserError where it cannot be had as asked."""
    if found := endpoint(model):
        from magistral.serve.elsewhere import behind

        return behind(*found, n_slots=n_slots, window=window)
    from magistral.serve.model import Served
    from magistral.text.versions import as_version, version_of

    advice = version_of(version or "text")
    if engine == "llamacpp":
        made = _llamacpp(model, n_slots, window, threads)
    else:
        made = _native(model, n_slots, window, weights, threads)
    return Served(
        name=name_of(model), engine=made.engine, tokenizer=as_version(made.tokenizer, advice), able=frozenset(made.able),
        window=made.window, n_slots=n_slots, system=told_by(model, version),
        begin_thinking=trained_prompt(model).begin_thinking, temperature=advice.temperature, top_p=advice.top_p,
        advised_window=advice.advised or made.longest, max_tokens=min(advice.max_tokens or 1024, made.window // 2),
        weights=made.digest,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Made:
    engine: ServingEngine
    tokenizer: Tokenizer
    able: tuple[str, ...]
    """Which of engines.base.OPTIONS the engine does."""
    window: int
    longest: int
    """The model's own window."""
    digest: str
    """What the audit log calls the weights."""


def _native(model: str, n_slots: int, window: int | None, weights: Literal["float32", "int8"], threads: int) -> Made:
    import torch

    from magistral.engines.native.engine import NativeEngine
    from magistral.models.load import load_model

    torch.set_num_threads(threads)
    loaded, tokenizer = load_model(model)
    size = _window(model, window, loaded.sizes.window)
    engine = NativeEngine(loaded, tokenizer.eos, n_slots=n_slots, window=size, weights=weights)
    return Made(
        engine=engine, tokenizer=tokenizer, able=("top_k", "min_p", "n_top", "mask", "draft", "prediction"), window=size,
        longest=loaded.sizes.window, digest=f"{_hash(loaded)}:{weights}",
    )  # fmt: skip


def _llamacpp(model: str, n_slots: int, window: int | None, threads: int) -> Made:
    from magistral.engines.llamacpp import LlamacppEngine
    from magistral.models.find import model_path
    from magistral.models.sizes import sizes_of
    from magistral.models.words import tokenizer_of
    from magistral.weights.read import open_weights

    file = model_path(model)
    if file.suffix != ".gguf":
        raise ModelError(f"--engine llamacpp reads .gguf files, which {file} is not: make one with `magistral convert`")
    read = open_weights(file)
    sizes = sizes_of(read)
    tokenizer, size = tokenizer_of(read, sizes.n_words), _window(model, window, sizes.window)
    engine = LlamacppEngine(file, tokenizer, n_slots=n_slots, window=size, n_threads=threads)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Made(
        engine=engine, tokenizer=tokenizer, able=("top_k", "min_p", "n_top"), window=size, longest=sizes.window,
        digest=f"{digest}:llamacpp",
    )  # fmt: skip


def _window(model: str, wished: int | None, longest: int) -> int:
    if wished is not None and wished > longest:
        raise UserError(f"--window {wished} is over the window of {model}, {longest}: lower it")
    return wished or min(longest, MAX_WINDOW)


def _hash(model: Transformer) -> str:
    """SHA-256 of the weights as they were loaded, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().numpy().data)
    return digest.hexdigest()


def told_by(model: str, version: str | None) -> str:
    """A run's own system prompt; of a version of Magistral its prompt for people, the folder's own first."""
    from magistral.text.versions import system_prompt, version_of

    if version is None:
        return trained_prompt(model).system
    found = version_of(version)
    return system_prompt(found, "serve", Path(model)) if found.prompts else trained_prompt(model).system


def trained_prompt(model: str) -> Prompt:
    """What a run's model was trained with; empty for any other model."""
    from magistral.recipe import Prompt, load_recipe

    recipe = Path(model) / "recipe.toml"
    return load_recipe(recipe).prompt if recipe.exists() else Prompt()

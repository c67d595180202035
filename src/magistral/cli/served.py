"""From what a person names to a model that can be served: a folder, a file, an endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from magistral.cli.wiring import N_THREADS
from magistral.errors import ModelError, UserError

if TYPE_CHECKING:
    from magistral.engines.http import Endpoint
    from magistral.engines.native.engine import NativeEngine
    from magistral.models.transformer import Transformer
    from magistral.recipe import Prompt
    from magistral.serve.model import Served
    from magistral.serve.steering import Facts, ServingEngine

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a model is asked with; none of it changes what an answer means."""

    engine: Literal["native", "llamacpp"] = "native"
    weights: Literal["float32", "int8"] = "int8"
    window: int | None = None
    n_slots: int = 8
    """Completions written at once, by each engine."""
    threads: int = N_THREADS
    """Of each engine."""
    cache_mb: int | None = None
    prefix_mb: int = 256
    """As the native engine's."""
    replicas: int = 1
    prices: tuple[float, float] | None = None
    """Of a million tokens, read and written, at an endpoint."""
    budget: float | None = None
    """In the currency of `prices`."""


def load_served(model: str, means: Means, version: str | None = None) -> Served:
    """Raises UserError where it cannot be had as asked."""
    if found := endpoint(model):
        from magistral.serve.elsewhere import behind

        if means.replicas > 1:
            raise UserError(f"{found[0]} is behind an endpoint, which has replicas of its own: leave --replicas out")
        return behind(*found, n_slots=means.n_slots, window=means.window)
    from magistral.serve.model import Served
    from magistral.text.versions import version_of

    advice = version_of(version or "text")
    (engine, *others), facts = _engines(model, means, advice.name)
    return Served(
        name=name_of(model), engine=engine, replicas=tuple(others), tokenizer=facts.tokenizer, able=facts.able,
        window=facts.window, n_slots=means.n_slots, system=told_by(model, version),
        begin_thinking=trained_prompt(model).begin_thinking, temperature=advice.temperature, top_p=advice.top_p,
        advised_window=advice.advised or facts.longest, max_tokens=min(advice.max_tokens or 1024, facts.window // 2),
        weights=facts.digest,
    )  # fmt: skip


def _engines(model: str, means: Means, version: str) -> tuple[Sequence[ServingEngine], Facts]:
    """One here, or replicas in processes of their own."""
    if means.replicas == 1:
        engine, facts = make_engine(model, means, version)
        return [engine], facts
    from magistral.serve.replicas import hire

    return hire(partial(make_engine, model, means, version), means.replicas, num_cpus=means.threads)


def make_engine(model: str, means: Means, version: str) -> tuple[ServingEngine, Facts]:
    """Of a model on this machine, with the marks of that version. Raises UserError where it cannot be had as asked."""
    from magistral.text.versions import as_version, version_of

    engine, facts = (_llamacpp if means.engine == "llamacpp" else _native)(model, means)
    return engine, replace(facts, tokenizer=as_version(facts.tokenizer, version_of(version)))


def _native(model: str, means: Means) -> tuple[ServingEngine, Facts]:
    import torch

    from magistral.engines.native.engine import NativeEngine
    from magistral.models.load import load_model
    from magistral.serve.steering import Facts

    torch.set_num_threads(means.threads)
    loaded, tokenizer = load_model(model)
    size = _window(model, means.window, loaded.sizes.window)
    engine = NativeEngine(
        loaded, tokenizer.eos, n_slots=means.n_slots, window=size, weights=means.weights, cache_mb=means.cache_mb,
        prefix_mb=means.prefix_mb,
    )  # fmt: skip
    _warm(engine)
    able = frozenset({"top_k", "min_p", "n_top", "mask", "draft", "prediction", "begun"})
    digest = f"{_hash(loaded)}:{means.weights}"
    return engine, Facts(tokenizer=tokenizer, able=able, window=size, longest=loaded.sizes.window, digest=digest)


def _warm(engine: NativeEngine) -> None:
    """What is compiled or read at its first use is there before the first request."""
    from magistral.engines.base import Request

    engine.submit(Request(prompt=(engine.eos,), seeds=(0,), max_tokens=2, top_p=0.5))
    while not engine.idle:
        engine.step()
    engine.prefixes.clear()


def _llamacpp(model: str, means: Means) -> tuple[ServingEngine, Facts]:
    from magistral.engines.llamacpp import LlamacppEngine
    from magistral.models.find import model_path
    from magistral.models.sizes import sizes_of
    from magistral.models.words import tokenizer_of
    from magistral.serve.steering import Facts
    from magistral.weights.read import open_weights

    if means.cache_mb is not None:
        raise UserError("--cache-mb is for the native engine: with --engine llamacpp the cache is --slots times --window")
    file = model_path(model)
    if file.suffix != ".gguf":
        raise ModelError(f"--engine llamacpp reads .gguf files, which {file} is not: make one with `magistral convert`")
    read = open_weights(file)
    sizes = sizes_of(read)
    tokenizer, size = tokenizer_of(read, sizes.n_words), _window(model, means.window, sizes.window)
    engine = LlamacppEngine(file, tokenizer, n_slots=means.n_slots, window=size, n_threads=means.threads)
    with file.open("rb") as opened:
        digest = f"{hashlib.file_digest(opened, 'sha256').hexdigest()}:llamacpp"
    able = frozenset({"top_k", "min_p", "n_top"})
    return engine, Facts(tokenizer=tokenizer, able=able, window=size, longest=sizes.window, digest=digest)


def _window(model: str, wished: int | None, longest: int) -> int:
    if wished is not None and wished > longest:
        raise UserError(f"a window of {wished} is over that of {model}, {longest}: lower it")
    return wished or min(longest, MAX_WINDOW)


def _hash(model: Transformer) -> str:
    """SHA-256 of the weights as they were loaded, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().numpy().data)
    return digest.hexdigest()


def told_by(model: str, version: str | None) -> str:
    """A run's own system prompt; of a version of Magistral its prompt for people, the one beside its weights first."""
    from magistral.models.find import folder_of
    from magistral.text.versions import system_prompt, version_of

    if version is None:
        return trained_prompt(model).system
    found = version_of(version)
    return system_prompt(found, "serve", folder_of(Path(model))) if found.prompts else trained_prompt(model).system


def trained_prompt(model: str) -> Prompt:
    """What a run's model was trained with; empty for any other model."""
    from magistral.recipe import Prompt, load_recipe

    recipe = Path(model) / "recipe.toml"
    return load_recipe(recipe).prompt if recipe.exists() else Prompt()

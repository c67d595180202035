"""The engine that a recipe names, ready to write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magistral.recipe import Recipe
from magistral.text.tokens import Tokenizer

if TYPE_CHECKING:
    from magistral.engines.native.engine import NativeEngine
    from magistral.engines.vllm import VllmEngine
    from magistral.models.transformer import Transformer


def engine_of(recipe: Recipe, model: Transformer, tokenizer: Tokenizer, part: tuple[int, int] = (0, 1)) -> NativeEngine | VllmEngine:
    """With the model's weights as they are now. `part`: of how many generators this is which; servers are shared out.

    Raises UserError or GeneratorLost where a vLLM server cannot be had."""
    settings, window = recipe.engine, recipe.model.window
    if settings.kind == "native":
        from magistral.engines.native.engine import NativeEngine

        return NativeEngine(model, tokenizer.eos, n_slots=settings.n_slots, window=window, weights=settings.weights)
    from magistral.engines.vllm import VllmEngine
    from magistral.engines.vllm_launch import VllmProcess
    from magistral.engines.vllm_weights import Shelf

    urls, own = settings.urls[part[0] :: part[1]], None
    if not urls:
        config = {**model.sizes.to_config(), "eos_token_id": tokenizer.eos}
        own = VllmProcess(settings.program, config, window=window, n_slots=settings.n_slots, flags=settings.flags)
        urls = (own.url,)
    shelf = Shelf(
        dict(model.named_parameters()), base=Path(settings.folder) if settings.folder else None, name=f"{part} {settings.urls}"
    )
    return VllmEngine(urls, tokenizer.eos, window=window, shelf=shelf, process=own)

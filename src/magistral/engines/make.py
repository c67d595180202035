"""The engine that a recipe names, ready to write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from magistral.errors import UserError
from magistral.recipe import Recipe
from magistral.text.tokens import Tokenizer

if TYPE_CHECKING:
    from magistral.engines.native.engine import NativeEngine
    from magistral.engines.vllm import VllmEngine
    from magistral.models.transformer import Transformer


@contextmanager
def engine_of(
    recipe: Recipe, model: Transformer, tokenizer: Tokenizer, *, part: tuple[int, int] = (0, 1)
) -> Iterator[NativeEngine | VllmEngine]:
    """To be loaded once before it writes: a vLLM server does not have the weights yet.

    `part`: of how many generators this is which; they share the recipe's servers out. Raises UserError or GeneratorLost where a
    server cannot be had."""
    settings, window = recipe.engine, recipe.model.window
    if settings.kind == "native":
        from magistral.engines.native.engine import NativeEngine

        native = NativeEngine(
            model, tokenizer.eos, n_slots=settings.n_slots, window=window, weights=settings.weights, cache_mb=settings.cache_mb,
            prefix_mb=settings.prefix_mb,
        )  # fmt: skip
        del model  # it holds its own copy
        yield native
        return
    try:
        from magistral.engines.vllm import VllmEngine
        from magistral.engines.vllm_launch import vllm_process
        from magistral.engines.vllm_weights import Shelf
    except ImportError as e:
        raise UserError(f'engine.kind = "vllm" needs the package {e.name}: scripts/install vllm') from None

    dtype = "bfloat16" if recipe.runtime.generator_gpus else "float32"
    with ExitStack() as stack:
        urls = settings.urls[part[0] :: part[1]]
        if not urls:
            config = {**model.sizes.to_config(dtype), "eos_token_id": tokenizer.eos}
            started = vllm_process(settings.program, config, window=window, n_slots=settings.n_slots, flags=recipe.server_flags)
            urls = (stack.enter_context(started),)
        base = Path(settings.folder) if settings.folder else None
        shelf = Shelf(dict(model.named_parameters()), base=base, name=" ".join(urls), dtype=dtype)
        engine = VllmEngine(urls, tokenizer.eos, window=window, shelf=shelf)
        stack.callback(engine.close)
        yield engine

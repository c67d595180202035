"""Before weights are rounded to 8 bits: what is large in one channel of every input is moved into the weights that read it.

A product's inputs are rounded, too, each token in parts of its largest number, and a few channels are a hundred times as large as
the rest (SmoothQuant, arXiv 2211.10438). Divided by s in what makes a channel, and multiplied by s in what reads it, the model is
the same, and both are easier to round. `benchmarks/int8.py` measures the nats that 8 bits still cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from magistral.models.transformer import Masked, Transformer

N_TOKENS = 128
"""Drawn at random: what is large is so whatever is read (chosen: text instead gives a little less error)."""
LEAST = 1e-5
Factors = Mapping[str, Sequence[Tensor]]
"""What to multiply each weight with, by its name."""


@torch.inference_mode()
def factors_of(model: Transformer) -> Factors:
    """From its weights alone, so that one model always gets the same."""
    largest, weights = _largest_inputs(model), dict(model.named_parameters(remove_duplicate=False))
    found: defaultdict[str, list[Tensor]] = defaultdict(list)

    def move(maker: str, *readers: str) -> None:
        reading = torch.stack([weights[name].abs().amax(dim=0) for name in readers]).amax(dim=0).float()
        scale = (largest[readers[0]].clamp_min(LEAST) / reading.clamp_min(LEAST)).sqrt()
        for name in readers:
            found[name].append(scale)
        found[maker].append(1 / (scale[:, None] if weights[maker].ndim == 2 else scale))

    for i in range(model.sizes.n_layers):
        at = f"layers.{i}."
        move(f"{at}input_layernorm.weight", *(f"{at}self_attn.{part}_proj.weight" for part in "qkv"))
        move(f"{at}post_attention_layernorm.weight", f"{at}mlp.gate_proj.weight", f"{at}mlp.up_proj.weight")
        move(f"{at}mlp.up_proj.weight", f"{at}mlp.down_proj.weight")
    move("norm.weight", "lm_head.weight")
    return found


def _largest_inputs(model: Transformer) -> dict[str, Tensor]:
    """[I] of each matrix, by its name."""
    found: dict[str, Tensor] = {}

    def look(name: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        found[f"{name}.weight"] = inputs[0].abs().flatten(0, -2).amax(dim=0).float()

    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.sizes.n_words, (1, N_TOKENS), generator=random)
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                hook: Callable[..., None] = partial(look, name)
                hooks.callback(module.register_forward_pre_hook(hook).remove)
        model.lm_head(model(tokens, torch.arange(N_TOKENS)[None], Masked()))
    return found

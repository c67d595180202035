"""Low-rank additions to the matrices (Hu et al., arXiv 2106.09685): W + (alpha / rank) B A, with B starting at 0."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magistral.models.transformer import Layer, Transformer
from magistral.recipe_train import Lora
from magistral.trainer.ranks import whole


class LoraLinear(nn.Module):
    def __init__(self, base: nn.Linear, lora: Lora, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.scale = lora.alpha / lora.rank
        a = torch.empty(lora.rank, base.in_features).uniform_(-1, 1, generator=generator)
        self.lora_a = nn.Parameter(a * (3 / base.in_features) ** 0.5)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, lora.rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.lora_a) * self.scale, self.lora_b)

    @torch.no_grad()
    def merged(self) -> Tensor:
        return whole(self.weight) + self.scale * (whole(self.lora_b) @ whole(self.lora_a))


def add_lora(model: Transformer, lora: Lora, seed: int) -> None:
    """Freeze the model and put additions into the matrices of the chosen layers."""
    model.requires_grad_(False)  # noqa: FBT003 - torch's own form
    generator = torch.Generator().manual_seed(seed)
    layers = list(model.layers)
    for layer in layers[-(lora.last_layers or len(layers)) :]:
        assert isinstance(layer, Layer)
        for block in (layer.self_attn, layer.mlp):
            for name, child in list(block.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(block, name, LoraLinear(child, lora, generator))


def merged_weights(model: Transformer, *, changed_only: bool) -> Iterator[tuple[str, Tensor]]:
    """Weights under the plain model's names, additions merged in; `changed_only`: those that training moves."""
    merged = {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, LoraLinear)}
    for name, parameter in model.named_parameters():
        if name.endswith((".lora_a", ".lora_b")):
            continue
        if name in merged:
            yield name, merged[name].merged()
        elif parameter.requires_grad or not changed_only:
            yield name, whole(parameter.detach())

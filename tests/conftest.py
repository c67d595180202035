"""What several rooms' tests share. Torch is imported only by the fixtures that need it: the light rooms' tests stay quick."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from magistral.models.transformer import Transformer

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: tiny models are slower on more threads


@pytest.fixture
def tiny() -> Callable[..., Transformer]:
    """`tiny(seed, **sizes)`: a two-layer model whose weights are large enough that its logits differ by whole nats."""
    import torch

    from magistral.models.sizes import Sizes
    from magistral.models.transformer import new_transformer

    def make(seed: int = 0, **changes: object) -> Transformer:
        sizes: dict[str, object] = {
            "family": "llama", "n_words": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8,
            "hidden_dim": 48, "norm_eps": 1e-5, "rope_theta": 10000.0, "window": 128, "tied": True,
        }  # fmt: skip
        model = new_transformer(Sizes(**(sizes | changes)), seed)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("bias"):
                    weight.normal_(std=0.5, generator=generator)
                elif weight.dim() == 2:
                    weight.mul_(10)
        return model

    return make

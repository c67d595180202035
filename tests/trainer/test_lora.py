from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magistral.models.transformer import Masked, Transformer
from magistral.recipe_train import Lora
from magistral.trainer.lora import LoraLinear, add_lora, merged_weights

Tiny = Callable[..., Transformer]
MATRICES = [
    *("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"),
    *("self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"),
]
VARIANTS = [{}, {"family": "qwen2", "attention_bias": True}]


def logits(model: Transformer) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.lm_head(model(torch.arange(20)[None], torch.arange(20)[None], Masked()))
    return out


def move(model: Transformer) -> None:
    """As training would: every B away from 0."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("lora_b"):
                weight.normal_(std=0.1, generator=generator)


@pytest.mark.parametrize("changes", VARIANTS, ids=["llama", "biases"])
def test_additions_change_nothing_at_the_start(changes: dict[str, object], tiny: Tiny) -> None:
    model = tiny(**changes)
    before = logits(model)
    add_lora(model, Lora(rank=4, alpha=8.0), seed=0)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("changes", VARIANTS, ids=["llama", "biases"])
def test_a_plain_model_with_the_merged_weights_equals_the_model_with_additions(changes: dict[str, object], tiny: Tiny) -> None:
    model, plain = tiny(**changes), tiny(**changes)
    before = logits(model)
    add_lora(model, Lora(rank=4, alpha=8.0), seed=0)
    move(model)
    plain.load_state_dict(dict(merged_weights(model, changed_only=False)), strict=False)
    assert (logits(plain) - logits(model)).abs().max() < 1e-4
    assert (logits(model) - before).abs().max() > 0.1


def test_a_merged_matrix_by_hand() -> None:
    base = torch.nn.Linear(2, 1, bias=False)
    lora = LoraLinear(base, Lora(rank=1, alpha=3.0), torch.Generator())
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 2.0]]))
        lora.lora_a.copy_(torch.tensor([[0.5, -1.0]]))
        lora.lora_b.copy_(torch.tensor([[2.0]]))
    # 3 / 1 times 2 times (.5, -1) is (3, -6), added to (1, 2)
    assert lora.merged().tolist() == [[4.0, -4.0]]
    assert lora(torch.tensor([[1.0, 1.0]])).tolist() == [[0.0]]


@pytest.mark.parametrize(("last_layers", "chosen"), [(None, [0, 1]), (1, [1]), (2, [0, 1]), (5, [0, 1])])
def test_only_the_chosen_layers_are_trained_and_sent(last_layers: int | None, chosen: list[int], tiny: Tiny) -> None:
    model = tiny()
    names = [name for name, _ in model.named_parameters()]
    add_lora(model, Lora(rank=4, alpha=8.0, last_layers=last_layers), seed=0)
    matrices = [f"layers.{i}.{m}" for i in chosen for m in MATRICES]
    assert sorted(n for n, m in model.named_modules() if isinstance(m, LoraLinear)) == matrices
    trained = sorted(n for n, p in model.named_parameters() if p.requires_grad)
    assert trained == sorted(f"{m}.{part}" for m in matrices for part in ("lora_a", "lora_b"))
    assert sorted(n for n, _ in merged_weights(model, changed_only=True)) == [f"{m}.weight" for m in matrices]
    assert sorted(n for n, _ in merged_weights(model, changed_only=False)) == sorted(names)


def test_reading_merged_weights_does_not_switch_gradients_off_for_others(tiny: Tiny) -> None:
    model = tiny()
    add_lora(model, Lora(rank=4, alpha=8.0), seed=0)
    for _, weight in merged_weights(model, changed_only=False):
        assert torch.is_grad_enabled()
        assert not weight.requires_grad

"""Our one model definition against the public reference, on the same random weights, both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from magistral.models.load import load_model, save_model
from magistral.models.transformer import Masked, Transformer
from magistral.text.tokens import byte_tokenizer

transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(0, 257, (2, 24), generator=torch.Generator().manual_seed(3))

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, grouped heads": ("Llama", {}),
    "llama, biases": ("Llama", {"attention_bias": True}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral, heads wider than the model": ("Mistral", {"head_dim": 16, "sliding_window": None}),
    "qwen2, biases on q, k and v only": ("Qwen2", {}),
    "qwen3, normalised q and k": ("Qwen3", {"head_dim": 16}),
}

OURS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, untied": {"tied": False},
    "llama, biases": {"attention_bias": True},
    "mistral": {"family": "mistral", "head_dim": 16, "rope_theta": 1e6},
    "qwen2": {"family": "qwen2", "attention_bias": True},
    "qwen3": {"family": "qwen3", "qk_norm": True, "head_dim": 16, "tied": False},
}


def logits(model: Transformer, tokens_BT: Tensor) -> Tensor:
    positions_BT = torch.arange(tokens_BT.shape[1]).expand(tokens_BT.shape)
    with torch.no_grad():
        out: Tensor = model.lm_head(model(tokens_BT, positions_BT, Masked()))
    return out


def reference(name: str, changes: dict[str, Any]) -> Any:
    """Every weight random: biases that are 0 and norms that are 1 would hide a mistake."""
    sizes = {
        "vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**(sizes | changes))
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval().float()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(mean=float(weight.dim() == 1), std=0.2, generator=generator)
    return model


@pytest.mark.parametrize(("name", "changes"), FAMILIES.values(), ids=FAMILIES)
def test_a_folder_of_the_reference_gives_the_reference_s_logits(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = reference(name, changes)
    theirs.save_pretrained(tmp_path)
    byte_tokenizer().save(tmp_path)
    ours, _ = load_model(str(tmp_path))
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    assert expected.std() > 0.1
    assert (logits(ours, TOKENS) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("changes", OURS.values(), ids=OURS)
def test_a_folder_of_ours_gives_our_logits_in_the_reference(
    changes: dict[str, Any], tiny: Callable[..., Transformer], tmp_path: Path
) -> None:
    ours = tiny(n_words=257, **changes)
    save_model(tmp_path, ours, byte_tokenizer(), ours.named_parameters())
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), "no key is missing, unexpected or of another shape"
    with torch.no_grad():
        assert (theirs.float()(TOKENS).logits - logits(ours, TOKENS)).abs().max() <= 1e-4


def test_a_token_does_not_see_what_comes_after_it(tiny: Callable[..., Transformer]) -> None:
    model, tokens = tiny(), TOKENS[:1] % 64
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 64
    difference = (logits(model, tokens) - logits(model, changed)).abs().amax(-1)[0]
    assert difference[:10].max() == 0
    assert difference[10:].min() > 1e-3


def test_the_same_seed_gives_the_same_new_model(tiny: Callable[..., Transformer]) -> None:
    one, two, other = tiny(seed=4), tiny(seed=4), tiny(seed=5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embed_tokens.weight, other.embed_tokens.weight)

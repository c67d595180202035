"""One name for each tensor, and back."""

from __future__ import annotations

import pytest

from magistral.weights.names import Format, is_left_out, our_name, their_name

TABLE = [
    ("embed_tokens.weight", "tok_embeddings.weight", "token_embd.weight"),
    ("norm.weight", "norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight", "output.weight"),
    ("layers.12.self_attn.q_proj.weight", "layers.12.attention.wq.weight", "blk.12.attn_q.weight"),
    ("layers.0.self_attn.k_proj.bias", "layers.0.attention.wk.bias", "blk.0.attn_k.bias"),
    ("layers.3.mlp.down_proj.weight", "layers.3.feed_forward.w2.weight", "blk.3.ffn_down.weight"),
    ("layers.3.mlp.up_proj.weight", "layers.3.feed_forward.w3.weight", "blk.3.ffn_up.weight"),
    ("layers.3.mlp.gate_proj.weight", "layers.3.feed_forward.w1.weight", "blk.3.ffn_gate.weight"),
    ("layers.9.post_attention_layernorm.weight", "layers.9.ffn_norm.weight", "blk.9.ffn_norm.weight"),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "mistral", "gguf"), TABLE, ids=[row[0] for row in TABLE])
def test_a_tensor_has_its_name_in_every_format(ours: str, mistral: str, gguf: str) -> None:
    hf = ours if ours == "lm_head.weight" else f"model.{ours}"
    forms: dict[Format, str] = {"hf": hf, "mistral": mistral, "gguf": gguf}
    for form, name in forms.items():
        assert their_name(ours, form) == name
        assert our_name(name, form) == ours


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("model.language_model.layers.1.mlp.up_proj.weight", "layers.1.mlp.up_proj.weight"),
        ("language_model.model.norm.weight", "norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("norm.weight", "norm.weight"),
    ],
    ids=["a model that sees, new names", "a model that sees, old names", "its output matrix", "no prefix"],
)
def test_other_prefixes_of_hugging_face_are_known(name: str, ours: str) -> None:
    assert our_name(name, "hf") == ours


@pytest.mark.parametrize(
    "name", ["blk.0.ffn_gate_exps.weight", "blk.x.attn_q.weight", "blk.0.token_embd.weight", "attn_q.weight", "", "output"]
)
def test_a_name_that_the_dense_family_has_not_is_none(name: str) -> None:
    assert our_name(name, "gguf") is None


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("vision_encoder.transformer.layers.0.attention.wq.weight", True),
        ("model.vision_tower.ln_pre.weight", True),
        ("multi_modal_projector.linear_1.weight", True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", True),
        ("model.layers.0.self_attn.q_proj.weight", False),
    ],
)  # fmt: skip
def test_what_is_not_the_text_model_is_left_out(name: str, out: bool) -> None:
    assert is_left_out(name) == out

"""One name for each tensor, whatever the file calls it: Hugging Face's, without the leading `model.`."""

from __future__ import annotations

import re
from typing import Literal

Format = Literal["hf", "mistral", "gguf"]

# ours: (Mistral's, GGUF's)
_OUTER = {
    "embed_tokens": ("tok_embeddings", "token_embd"),
    "norm": ("norm", "output_norm"),
    "lm_head": ("output", "output"),
}
_INNER = {
    "input_layernorm": ("attention_norm", "attn_norm"),
    "post_attention_layernorm": ("ffn_norm", "ffn_norm"),
    "self_attn.q_proj": ("attention.wq", "attn_q"),
    "self_attn.k_proj": ("attention.wk", "attn_k"),
    "self_attn.v_proj": ("attention.wv", "attn_v"),
    "self_attn.o_proj": ("attention.wo", "attn_output"),
    "self_attn.q_norm": ("attention.q_norm", "attn_q_norm"),
    "self_attn.k_norm": ("attention.k_norm", "attn_k_norm"),
    "mlp.gate_proj": ("feed_forward.w1", "ffn_gate"),
    "mlp.up_proj": ("feed_forward.w3", "ffn_up"),
    "mlp.down_proj": ("feed_forward.w2", "ffn_down"),
}
_COLUMN: dict[Format, int] = {"mistral": 0, "gguf": 1}
_LAYER: dict[Format, str] = {"mistral": "layers", "gguf": "blk"}

_HF_PREFIX = re.compile(r"^(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.)")
_NOT_TEXT = re.compile(
    r"^(?:model\.)?(?:vision_tower|multi_modal_projector|vision_encoder|vision_language_adapter|pre_mm_projector_norm|patch_merger)\."
    r"|rotary_emb\.inv_freq$"
)
"""Parts that see pictures, and a constant that old files store: not part of the dense text model."""


def is_left_out(name: str) -> bool:
    return bool(_NOT_TEXT.search(name))


def our_name(name: str, form: Format) -> str | None:
    """None where the dense family has no such tensor. Hugging Face's names only lose their prefix."""
    if form == "hf":
        return _HF_PREFIX.sub("", name)
    match = re.fullmatch(rf"(?:{_LAYER[form]}\.(\d{{1,6}})\.)?(.+)\.(weight|bias)", name)
    if not match:
        return None
    layer, middle, kind = match.groups()
    table = _OUTER if layer is None else _INNER
    found = next((ours for ours, theirs in table.items() if theirs[_COLUMN[form]] == middle), None)
    if found is None:
        return None
    return f"{found}.{kind}" if layer is None else f"layers.{int(layer)}.{found}.{kind}"


def their_name(name: str, form: Format) -> str:
    """The name of one of our tensors in a file of that format."""
    if form == "hf":
        return name if name.startswith("lm_head") else f"model.{name}"
    match = re.fullmatch(r"(?:layers\.(\d+)\.)?(.+)\.(weight|bias)", name)
    assert match, name
    layer, middle, kind = match.groups()
    if layer is None:
        return f"{_OUTER[middle][_COLUMN[form]]}.{kind}"
    return f"{_LAYER[form]}.{layer}.{_INNER[middle][_COLUMN[form]]}.{kind}"

"""Reading a GGUF file: its fields and its tensors as float32, under Hugging Face's names and in its layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from magistral.errors import ModelError

_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GgufFile:
    def __init__(self, path: Path) -> None:
        try:
            self._reader = GGUFReader(path)
        except (OSError, ValueError, IndexError) as e:
            raise ModelError(f"{path} cannot be read as GGUF: {e}") from None
        self.fields: dict[str, Any] = {name: field.contents() for name, field in self._reader.fields.items()}
        self.tied = all(t.name != "output.weight" for t in self._reader.tensors)

    def tensors(self) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
        """One at a time, so that memory stays near the largest."""
        family = self.fields["general.architecture"]
        heads = {"q": self.fields[f"{family}.attention.head_count"], "k": self.fields[f"{family}.attention.head_count_kv"]}
        for tensor in self._reader.tensors:
            if tensor.name == "rope_freqs.weight":
                raise ModelError("rope scaling (rope_freqs) is not covered")
            data = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            which = re.search(r"attn_([qk])\.", tensor.name)
            if which and family in ("llama", "mistral"):  # llama.cpp holds these rotated in pairs
                data = _unpermute(data, heads[which[1]])
            yield _hf_name(tensor.name), data


def _hf_name(name: str) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if not match or match[2] not in _NAMES:
        raise ModelError(f"the GGUF file has a tensor {name!r} that the dense family does not")
    layer = f"layers.{match[1]}." if match[1] else ""
    return f"{layer}{_NAMES[match[2]]}.{match[3]}"


def _unpermute(data: np.ndarray[Any, np.dtype[np.float32]], n_heads: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Undo llama.cpp's interleaving of a head's two halves: row pairs (0, 1), (2, 3)... back to first half, second half."""
    rows = data.shape[0] // n_heads
    return data.reshape(n_heads, rows // 2, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)

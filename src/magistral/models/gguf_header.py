"""What a GGUF file begins with: the model's sizes, its vocabulary, and the place of each tensor."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, LlamaFileType

from magistral.models.sizes import Sizes
from magistral.text.cutting import name_of
from magistral.text.tokens import CONTROL, GGUF_LAYOUT, NO_MERGE, NORMAL, USER_DEFINED, Tokenizer
from magistral.weights.kinds import quant_type
from magistral.weights.read import Weights
from magistral.weights.write import Target

ALIGNMENT = 32


def gguf_header(sizes: Sizes, tokenizer: Tokenizer, weights: Weights, targets: Sequence[Target]) -> bytes:
    """All bytes before the first tensor, padding included."""
    writer = GGUFWriter(None, str(sizes.to_gguf()["general.architecture"]))
    matrices = [t.kind for t in targets if len(t.source.shape) > 1]
    kind = max(sorted(set(matrices)), key=matrices.count)
    fields: dict[str, Any] = {
        "general.name": weights.path.stem,
        "general.file_type": int(getattr(LlamaFileType, f"MOSTLY_{kind}", LlamaFileType.GUESSED)) if kind != "F32" else 0,
        **({"general.quantization_version": 2} if kind not in ("F32", "F16", "BF16") else {}),
        **sizes.to_gguf(),
        **(_own_vocabulary(weights) if weights.form == "gguf" else _vocabulary(tokenizer, sizes.n_words)),
    }
    for name, value in fields.items():
        if name != "general.architecture":  # the writer has put it first
            _add(writer, name, value)
    for t in targets:
        writer.add_tensor_info(t.name, t.source.shape, np.dtype(np.float32), t.n_bytes, raw_dtype=quant_type(t.kind))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "header"
        writer.write_header_to_file(file)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        header = file.read_bytes()
    return header + bytes(-len(header) % ALIGNMENT)


def _add(writer: GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, list):
        writer.add_array(name, value)
    else:
        writer.add_string(name, value)


def _own_vocabulary(weights: Weights) -> dict[str, Any]:
    """As the file that we read from has it."""
    return {name: value for name, value in weights.config.items() if name.startswith("tokenizer.")}


def _vocabulary(tokenizer: Tokenizer, n_words: int) -> dict[str, Any]:
    backend = tokenizer.backend
    model = json.loads(backend.to_str())["model"]
    added = backend.get_added_tokens_decoder()
    words, kinds = [], []
    for i in range(n_words):
        word = backend.id_to_token(i)
        words.append(f"[PAD{i}]" if word is None else word)  # a row of the embedding that no text becomes
        kinds.append(CONTROL if word is None or word in tokenizer.special else USER_DEFINED if i in added else NORMAL)
    bos = backend.token_to_id(tokenizer.bos) if tokenizer.bos else None
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name_of(backend),
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in model["merges"]] or [NO_MERGE],
        "tokenizer.ggml.eos_token_id": tokenizer.eos,
        **({} if bos is None else {"tokenizer.ggml.bos_token_id": bos}),
        "tokenizer.ggml.add_bos_token": False,  # the template writes it
        **({"tokenizer.chat_template": tokenizer.chat_template} if tokenizer.chat_template else {}),
        **({GGUF_LAYOUT: tokenizer.layout} if tokenizer.layout != "template" else {}),
    }

"""tekken.json files for tests: a small one made up here, and the real vocabulary that mistral-common ships."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

OLD = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def specials(version: str, n: int) -> list[dict[str, Any]]:
    names = dict(enumerate(OLD)) | {32: "[ARGS]", 33: "[CALL_ID]"}
    if version == "v13":
        names |= {34: "[THINK]", 35: "[/THINK]"}
    return [{"rank": i, "token_str": names.get(i, f"<SPECIAL_{i}>"), "is_control": True} for i in range(n)]


def write_small(folder: Path, version: str = "v13", words: tuple[bytes, ...] = (b"th", b"in", b"thin", b"think", b" a")) -> Path:
    """256 bytes and a few words, 40 control tokens."""
    vocab = [bytes([i]) for i in range(256)] + list(words)
    data = {
        "config": {
            "pattern": PATTERN, "num_vocab_tokens": len(vocab), "default_vocab_size": len(vocab) + 40,
            "default_num_special_tokens": 40, "version": version,
        },
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(w).decode(), "token_str": None} for i, w in enumerate(vocab)],
        "special_tokens": specials(version, 40),
    }  # fmt: skip
    (folder / "tekken.json").write_text(json.dumps(data), encoding="utf-8")
    return folder / "tekken.json"


def write_real(folder: Path, version: str) -> Path:
    """The vocabulary of 131,072 words, with the control tokens of that version. Skips where mistral-common is absent."""
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        pytest.skip("needs mistral-common, whose wheel has the vocabulary: scripts/install mistral-common")
    data = json.loads((Path(spec.origin).parent / "data" / "tekken_240911.json").read_text(encoding="utf-8"))
    data.pop("image", None)
    data["config"]["version"] = version
    data["special_tokens"] = specials(version, 1000)
    (folder / "tekken.json").write_text(json.dumps(data), encoding="utf-8")
    return folder / "tekken.json"

"""How a text is cut into pieces before byte-level BPE, by the name that GGUF files use for each way."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import PreTokenizer

from magistral.errors import ModelError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_AFTER_NUMBERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _AFTER_NUMBERS
LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _AFTER_NUMBERS
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def by_pattern(pattern: str) -> PreTokenizer:
    """Pieces are what the pattern matches; their bytes are then written as letters."""
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


CUTTERS: dict[str, Callable[[], PreTokenizer]] = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "qwen2": lambda: by_pattern(QWEN2),
    "llama-bpe": lambda: by_pattern(LLAMA3),
    "tekken": lambda: by_pattern(TEKKEN),
}
WHOLE_WORDS = ("llama-bpe", "tekken")
"""Ways that take a piece which is itself a word as that word, whatever the merges would make of it."""


def cutter(name: str) -> PreTokenizer:
    """Raises ModelError for a way that is not known: another would give other tokens without a sound."""
    if name not in CUTTERS:
        raise ModelError(f"the GGUF file cuts text in the way {name!r}; what is covered: {', '.join(CUTTERS)}")
    return CUTTERS[name]()


def name_of(backend: Backend) -> str:
    """The name of a tokenizer's own way. Raises ModelError where GGUF has none that we know."""
    if not json.loads(backend.to_str())["model"].get("merges"):
        return "gpt-2"  # bytes alone: wherever a text is cut, they are the same
    own = _steps(backend.pre_tokenizer)
    for name, way in CUTTERS.items():
        if name != "default" and _steps(way()) == own:
            return name
    raise ModelError("this tokenizer cuts text in a way that has no GGUF name known here: no GGUF file can be written of it")


def _steps(way: PreTokenizer | None) -> object:
    """As plain data, settings that change nothing left out."""
    if way is None:
        return None
    data = json.loads(way.__getstate__())
    steps = data["pretokenizers"] if data["type"] == "Sequence" else [data]
    return [{k: v for k, v in step.items() if k != "trim_offsets"} for step in steps]

"""Mistral's tekken.json: byte-level BPE by ranks, with the control tokens first.

Read into the same backend as every other tokenizer. A rank is when a word was learnt: two neighbours are merged in the order
of the ranks of what they make, so every split of a word into two known words is a merge of that word's rank.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from magistral.errors import ModelError
from magistral.text.cutting import by_pattern
from magistral.text.tokens import Tokenizer
from magistral.text.trace import THINK_TEXT, THINK_TOKENS

LAYOUTS = ("v7", "v11", "v13")
"""tekken.json's versions whose conversations mistral.py lays out."""
_OLD_SPECIALS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
"""Of files that list none."""


class OtherVersion(ModelError):
    """A tekken.json whose conversations we cannot lay out; the model may have a tokenizer.json besides."""


TEKKEN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST]' + message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('no place for a message of role ' + message['role']) }}{% endif %}{% endfor %}"
)
"""For programs that read Jinja: text only."""


def tokenizer_from_tekken(file: Path) -> Tokenizer:
    """Raises ModelError where the file is broken or of a version that is not covered."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        config = data["config"]
        n_words, n_special = int(config["default_vocab_size"]), int(config["default_num_special_tokens"])
        layout = str(config["version"])
        if layout not in LAYOUTS:
            raise OtherVersion(f"{file}: version {layout!r}; what is covered: {', '.join(LAYOUTS)}")
        special = _specials(data.get("special_tokens"), n_special)
        words = [base64.b64decode(entry["token_bytes"], validate=True) for entry in data["vocab"][: n_words - n_special]]
        ranks = [entry["rank"] for entry in data["vocab"][: n_words - n_special]]
        pattern = str(config["pattern"])
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as e:
        raise ModelError(f"{file} is no whole tekken.json: {type(e).__name__}: {e}") from None
    if n_special < 3 or len(words) != n_words - n_special or ranks != list(range(len(words))) or len(set(words)) != len(words):
        raise ModelError(f"{file} is no whole tekken.json: {len(words)} words of {n_words - n_special}, or their ranks have gaps")
    if any(bytes([b]) not in words[:256] for b in range(256)):
        raise ModelError(f"{file}: its first 256 words are not the 256 bytes")
    marks = THINK_TOKENS if THINK_TOKENS.open in special and THINK_TOKENS.close in special else THINK_TEXT
    return Tokenizer(
        backend=_backend(words, special, pattern, file), eos=special.index("</s>"), chat_template=TEKKEN_TEMPLATE,
        special=frozenset(special), bos="<s>", layout=layout, marks=marks,
    )  # fmt: skip


def _specials(entries: Any, n_special: int) -> list[str]:
    """Text of each control token by id; places that the file leaves open get the names that Mistral's own code gives them."""
    named = {i: text for i, text in enumerate(_OLD_SPECIALS)} if entries is None else {e["rank"]: e["token_str"] for e in entries}
    special = [str(named.get(i, f"<SPECIAL_{i}>")) for i in range(n_special)]
    if len(set(special)) != n_special or any(i >= n_special for i in named) or not {"<s>", "</s>", "[INST]"} <= set(special):
        raise ValueError("its control tokens are not whole")
    return special


def _backend(words: Sequence[bytes], special: Sequence[str], pattern: str, file: Path) -> Backend:
    letters = bytes_to_letters()
    spelled = ["".join(map(letters.__getitem__, word)) for word in words]
    rank = {word: i for i, word in enumerate(spelled)}
    merges = [
        (word[:cut], word[cut:])
        for word in spelled
        if len(word) > 1
        for cut in sorted((c for c in range(1, len(word)) if word[:c] in rank and word[c:] in rank), key=lambda c: rank[word[:c]])
    ]
    vocab = {word: i + len(special) for i, word in enumerate(spelled)}
    try:
        backend = Backend(models.BPE(vocab={**{s: i for i, s in enumerate(special)}, **vocab}, merges=merges, ignore_merges=True))
        backend.pre_tokenizer = by_pattern(pattern)
    except Exception as e:  # noqa: BLE001 - the library raises bare Exception
        raise ModelError(f"{file}: {e}") from None
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    return backend


def bytes_to_letters() -> dict[int, str]:
    """Byte-level BPE's alphabet (GPT-2): a printable byte of Latin-1 is its own letter, the others come from 256 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(own)]
    return {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(others)}

"""Text to token ids and back, for a Hugging Face `tokenizer.json`, a GGUF file's own vocabulary, or bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from magistral.errors import ModelError

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BYTES_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@dataclass(frozen=True)
class Tokenizer:
    backend: Backend
    eos: int
    """The token that ends a completion."""
    chat_template: str
    """Jinja, as Hugging Face writes it."""
    special: frozenset[str]
    """Control tokens by their text; a user's text never becomes one of these."""
    bos: str = ""
    """Text of the token that a template calls `bos_token`; empty where the model names none."""

    def encode(self, text: str) -> list[int]:
        """Plain text: what reads like a control token is encoded as ordinary characters."""
        ids: list[int] = []
        for piece, is_control in _split_control(text, self.special):
            if is_control:  # cut in two, so that the backend cannot match it
                ids += self._raw(piece[:1]) + self.encode(piece[1:])  # the rest may hold a shorter one
            else:
                ids += self._raw(piece)
        return ids

    def encode_template(self, text: str) -> list[int]:
        """Text of a template's own, in which control tokens count."""
        return self._raw(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)

    @property
    def n_words(self) -> int:
        return self.backend.get_vocab_size()

    def _raw(self, text: str) -> list[int]:
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def save(self, folder: Path) -> None:
        """tokenizer.json and tokenizer_config.json, as transformers reads them."""
        self.backend.save(str(folder / "tokenizer.json"))
        eos = self.backend.id_to_token(self.eos)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": eos,
            "pad_token": eos,
            **({"bos_token": self.bos} if self.bos else {}),
            "chat_template": self.chat_template,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _split_control(text: str, special: frozenset[str]) -> list[tuple[str, bool]]:
    pieces: list[tuple[str, bool]] = [(text, False)]
    for token in sorted(special, key=len, reverse=True):
        pieces = [part for piece in pieces for part in ([piece] if piece[1] else _cut(piece[0], token))]
    return pieces


def _cut(text: str, token: str) -> list[tuple[str, bool]]:
    parts: list[tuple[str, bool]] = []
    for i, piece in enumerate(text.split(token)):
        parts += [(token, True)] * (i > 0) + [(piece, False)] * bool(piece)
    return parts


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """Raises ModelError where a file is absent or broken, or nothing ends a completion."""
    file = folder / "tokenizer.json"
    if not file.exists():
        raise ModelError(f"{folder} has no tokenizer.json: name a complete model folder in Hugging Face format")
    try:
        backend = Backend.from_file(str(file))
    except Exception as e:  # noqa: BLE001 - the library raises bare Exception
        raise ModelError(f"{file}: {e}") from None
    config_file = folder / "tokenizer_config.json"
    config = _read_config(config_file)
    eos_text = _text_of(config.get("eos_token"))
    eos = backend.token_to_id(eos_text) if eos_text else None
    if eos is None:
        raise ModelError(f"{config_file} names no eos_token that the vocabulary has: a completion would never end")
    return Tokenizer(backend, eos, _template_of(config, folder), _specials(backend), _text_of(config.get("bos_token")) or "")


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as e:
        raise ModelError(f"{file} is no JSON: {e}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file} holds no object of settings")
    return config


def _template_of(config: dict[str, Any], folder: Path) -> str:
    """The configuration's, else chat_template.jinja, else ChatML."""
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name, as older folders have them
        template = {t["name"]: t["template"] for t in template}.get("default")
        if template is None:
            raise ModelError(f"{folder / 'tokenizer_config.json'} has several chat templates and none named default")
    file = folder / "chat_template.jinja"
    return template or (file.read_text(encoding="utf-8") if file.exists() else CHATML)


def tokenizer_from_gguf(fields: dict[str, Any]) -> Tokenizer:
    """From a GGUF file's `tokenizer.*` fields: byte-level BPE (gpt2); other kinds are a ModelError."""
    if fields.get("tokenizer.ggml.model") != "gpt2":
        raise ModelError(
            f"the GGUF file has a {fields.get('tokenizer.ggml.model')!r} tokenizer; byte-level BPE ('gpt2') is what is read here"
        )
    words: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ", 1)) for m in fields["tokenizer.ggml.merges"]]
    backend = Backend(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges))
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    if fields.get("tokenizer.ggml.pre") == "smollm":  # its own first step: each digit is a word
        steps = [pre_tokenizers.Digits(individual_digits=True), *steps]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    control = [
        w for w, kind in zip(words, fields["tokenizer.ggml.token_type"], strict=True) if kind == 3
    ]  # 3: control, in llama.cpp
    backend.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in control])
    eos = int(fields["tokenizer.ggml.eos_token_id"])
    bos = fields.get("tokenizer.ggml.bos_token_id")
    template = fields.get("tokenizer.chat_template", CHATML)
    return Tokenizer(backend, eos, template, frozenset(control), "" if bos is None else words[int(bos)])


def byte_tokenizer() -> Tokenizer:
    """256 bytes and `<eos>`: for models from scratch."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<eos>", special=True, normalized=False)])
    eos = backend.token_to_id("<eos>")
    assert eos is not None
    return Tokenizer(backend, eos, BYTES_TEMPLATE, frozenset(["<eos>"]))


def _specials(backend: Backend) -> frozenset[str]:
    return frozenset(t.content for t in backend.get_added_tokens_decoder().values() if t.special)


def _text_of(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token

"""Text to token ids and back, for a Hugging Face `tokenizer.json`, a GGUF file's own vocabulary, or bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from magistral.errors import ModelError, UserError
from magistral.text.cutting import WHOLE_WORDS, cutter
from magistral.text.trace import THINK_TEXT, THINK_TOKENS, Marks

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Kinds of token in a GGUF file, as llama.cpp numbers them."""
NO_MERGE = "\u0120 \u0120"
"""Stands in a GGUF file for no merges at all, which llama.cpp refuses to read: it makes a word that is not in the vocabulary."""
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BYTES_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"

LAYOUTS = ("template", "v7", "v11", "v13")
GGUF_LAYOUT = "tokenizer.magistral.layout"
"""A field of our own, since GGUF has none: how a conversation is laid out, where not by the template."""
LONG_TEXT = 20_000
"""Characters from which to make tokens takes so long (chosen: 10 ms and more) that others should not wait for it."""


@dataclass(frozen=True)
class Tokenizer:
    backend: Backend
    eos: int
    """The token that ends a completion."""
    chat_template: str
    """Jinja, as Hugging Face writes it; empty where a model of Mistral's vocabulary names none, so that its version must be."""
    special: frozenset[str]
    """Control tokens by their text; a user's text never becomes one of these."""
    bos: str = ""
    """Text of the token that a template calls `bos_token`; empty where the model names none."""
    layout: str = "template"
    """How a conversation is laid out: by `chat_template`, or as Mistral's tokenizer version "v7", "v11" or "v13" says."""
    marks: Marks = THINK_TEXT
    """What stands around the model's thinking; which it is the model's version says (see versions.py)."""

    def __post_init__(self) -> None:
        self.backend.encode_special_tokens = True  # what reads like a control token is text, unless we say otherwise

    def encode(self, text: str) -> list[int]:
        """Plain text: what reads like a control token is encoded as ordinary characters.

        Raises UserError where the text is no Unicode: half a surrogate pair has no bytes."""
        try:
            ids = self._raw(text)
        except (UnicodeEncodeError, TypeError):
            place = next((i for i, c in enumerate(text) if 0xD800 <= ord(c) < 0xE000), None)
            if place is None:
                raise
            raise UserError(
                f"the text holds half a surrogate pair (U+{ord(text[place]):04X} at character {place}): no Unicode"
            ) from None
        if not self.control.isdisjoint(ids):  # a vocabulary whose merges spell a control token: letter by letter they do not
            ids = [i for letter in text for i in self._raw(letter)]
        return ids

    def encode_template(self, text: str) -> list[int]:
        """Text of a template's own, in which control tokens count."""
        ids: list[int] = []
        for i, piece in enumerate(self._control_pattern.split(text)):
            ids += [self.control_id(piece)] if i % 2 else self._raw(piece)
        return ids

    def control_id(self, text: str) -> int:
        """Of the control token with that text. Raises ModelError where the model has none."""
        found = self.backend.token_to_id(text) if text in self.special else None
        if found is None:
            raise ModelError(f"the model's tokenizer has no control token {text}")
        return int(found)

    @property
    def marks_are_tokens(self) -> bool:
        """Each mark is a control token; else both are plain text."""
        return self.marks.open in self.special and self.marks.close in self.special

    @cached_property
    def control(self) -> frozenset[int]:
        """Ids of the control tokens."""
        return frozenset(i for i in map(self.backend.token_to_id, self.special) if i is not None)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.special, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)()")

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=False)

    @property
    def n_words(self) -> int:
        return self.backend.get_vocab_size()

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token: no text has fewer tokens than its bytes divided by this."""
        return max(len(word.encode()) for word in self.backend.get_vocab())

    def _raw(self, text: str) -> list[int]:
        if len(text) > LONG_TEXT:  # a batch leaves other threads running, which one text does not
            return list(self.backend.encode_batch([text], add_special_tokens=False)[0].ids)
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
            **({"layout": self.layout} if self.layout != "template" else {}),
            **({"thinking_marks": [self.marks.open, self.marks.close]} if self.marks != THINK_TEXT else {}),
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
    bos, layout = _text_of(config.get("bos_token")) or "", config.get("layout", "template")
    if layout not in LAYOUTS:
        raise ModelError(f"{config_file}: layout {layout!r}; what is covered: {', '.join(LAYOUTS)}")
    marks = THINK_TOKENS if config.get("thinking_marks") == [THINK_TOKENS.open, THINK_TOKENS.close] else THINK_TEXT
    return Tokenizer(backend, eos, _template_of(config, folder), _specials(backend), bos, layout, marks)


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
        named = (t for t in template if isinstance(t, dict) and t.get("name") == "default")
        template = next(named, {}).get("template")
        if template is None:
            raise ModelError(f"{folder / 'tokenizer_config.json'} has several chat templates and none named default")
    if not isinstance(template, str | None):
        raise ModelError(f"{folder / 'tokenizer_config.json'}: its chat_template is no text")
    file = folder / "chat_template.jinja"
    if template or not file.exists():
        return CHATML if template is None else template
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ModelError(f"{file} cannot be read: {e}") from None


def tokenizer_from_gguf(fields: dict[str, Any]) -> Tokenizer:
    """From a GGUF file's `tokenizer.*` fields: byte-level BPE (gpt2); other kinds are a ModelError."""
    if fields.get("tokenizer.ggml.model") != "gpt2":
        raise ModelError(
            f"the GGUF file has a {fields.get('tokenizer.ggml.model')!r} tokenizer; byte-level BPE ('gpt2') is what is read here"
        )
    try:
        words = [str(word) for word in fields["tokenizer.ggml.tokens"]]
        pairs = fields.get("tokenizer.ggml.merges", ())  # a vocabulary of bytes alone has none
        pairs = () if pairs == [NO_MERGE] and NO_MERGE.replace(" ", "") not in words else pairs
        merges = [(first, second) for first, _, second in (pair.partition(" ") for pair in pairs)]
        kinds = dict(zip(words, fields["tokenizer.ggml.token_type"], strict=True))
        eos = int(fields["tokenizer.ggml.eos_token_id"])
        bos = fields.get("tokenizer.ggml.bos_token_id")
        bos_text = "" if bos is None else words[bos]
        end = words[eos]
        if not merges and list(kinds.values()).count(NORMAL) > 256:
            raise ValueError("words of several bytes, and no merges that make them")
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as e:
        raise ModelError(f"the GGUF file's vocabulary is not whole: {type(e).__name__}: {e}") from None
    way = fields.get("tokenizer.ggml.pre", "default")
    vocab = {w: i for i, w in enumerate(words)}
    try:
        backend = Backend(models.BPE(vocab=vocab, merges=merges, ignore_merges=way in WHOLE_WORDS))
    except Exception as e:  # noqa: BLE001 - the library raises bare Exception
        raise ModelError(f"the GGUF file's vocabulary is not whole: {e}") from None
    backend.pre_tokenizer = cutter(way)
    backend.decoder = decoders.ByteLevel()
    kinds[end] = CONTROL  # what ends a completion is never a user's
    control = [w for w, kind in kinds.items() if kind == CONTROL]
    backend.add_tokens([AddedToken(w, normalized=False) for w, kind in kinds.items() if kind == USER_DEFINED])
    backend.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in control])
    special, layout = frozenset(control), fields.get(GGUF_LAYOUT, "template")
    if layout not in LAYOUTS:
        raise ModelError(f"the GGUF file's {GGUF_LAYOUT} is {layout!r}; what is covered: {', '.join(LAYOUTS)}")
    otherwise = "" if way == "tekken" and "<|im_start|>" not in special else CHATML
    template = fields.get("tokenizer.chat_template", otherwise)
    marks = THINK_TOKENS if {THINK_TOKENS.open, THINK_TOKENS.close} <= special else THINK_TEXT
    return Tokenizer(backend, eos, template, special, bos_text, layout, marks)


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
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None

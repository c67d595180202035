"""Ways to cut a text before byte-level BPE, by their names in GGUF files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import tekken
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from magistral.errors import ModelError
from magistral.text.cutting import CUTTERS, cutter, name_of
from magistral.text.tekken import tokenizer_from_tekken


def backend(way: pre_tokenizers.PreTokenizer | None, *, merges: bool = True) -> Backend:
    vocab = {letter: i for i, letter in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "us"])}
    made = Backend(models.BPE(vocab=vocab, merges=[("u", "s")] if merges else []))
    if way is not None:
        made.pre_tokenizer = way
    return made


def pieces(name: str, text: str) -> list[str]:
    return [piece.replace("Ġ", " ").replace("Ċ", "\n") for piece, _ in cutter(name).pre_tokenize_str(text)]


@pytest.mark.parametrize("name", [name for name in CUTTERS if name != "default"])
def test_a_way_is_known_again_also_after_it_was_saved(name: str, tmp_path: Path) -> None:
    made = backend(cutter(name))
    assert name_of(made) == name
    made.save(str(tmp_path / "tokenizer.json"))
    assert name_of(Backend.from_file(str(tmp_path / "tokenizer.json"))) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["I", "'ve", " 1234", " HTTPServer", "\n", "\n", "ok"]),
        ("smollm", ["I", "'ve", " ", "1", "2", "3", "4", " HTTPServer", "\n", "\n", "ok"]),
        ("qwen2", ["I", "'ve", " ", "1", "2", "3", "4", " HTTPServer", "\n\n", "ok"]),
        ("llama-bpe", ["I", "'ve", " ", "123", "4", " HTTPServer", "\n\n", "ok"]),
        ("tekken", ["I", "'ve", " ", "1", "2", "3", "4", " HTTPServer", "\n\n", "ok"]),
    ],
)
def test_each_cuts_in_its_own_way(name: str, expected: list[str]) -> None:
    assert pieces(name, "I've 1234 HTTPServer\n\nok") == expected


def test_tekken_cuts_where_the_case_changes() -> None:
    assert pieces("tekken", "camelCase") == ["camel", "Case"]


def test_a_way_without_a_name_is_an_error_and_not_called_by_another() -> None:
    with pytest.raises(ModelError, match="has no GGUF name known here"):
        name_of(backend(pre_tokenizers.Whitespace()))
    with pytest.raises(ModelError, match="has no GGUF name known here"):
        name_of(backend(None))


def test_bytes_alone_need_no_way() -> None:
    assert name_of(backend(None, merges=False)) == "gpt-2"


def test_a_tekken_of_another_pattern_is_not_called_tekken(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no GGUF name known here"):
        name_of(tokenizer_from_tekken(tekken.write_small(tmp_path)).backend)

"""tekken.json: by a small vocabulary worked by hand, and the real one against Mistral's own library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import tekken

from magistral.errors import ModelError, UserError
from magistral.text.tekken import tokenizer_from_tekken
from magistral.text.tokens import Tokenizer, tokenizer_from_folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_tekken(tekken.write_small(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tekken.write_real(tmp_path_factory.mktemp("real"), "v13")


@pytest.fixture(scope="module")
def ours(real: Path) -> Tokenizer:
    return tokenizer_from_tekken(real)


@pytest.fixture(scope="module")
def theirs(real: Path) -> Callable[[str], list[int]]:
    tekkenizer = pytest.importorskip("mistral_common.tokens.tokenizers.tekken").Tekkenizer.from_file(str(real))
    return lambda text: list(tekkenizer.encode(text, bos=False, eos=False))


def names(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [str(tokenizer.backend.id_to_token(i)) for i in ids]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("think", [40 + 259]),
        ("thin", [40 + 258]),
        ("thi", [40 + 256, 40 + ord("i")]),
        ("in a", [40 + 257, 40 + 260]),
        ("hin", [40 + ord("h"), 40 + 257]),
        ("<s>", [40 + ord("<"), 40 + ord("s"), 40 + ord(">")]),
        ("é", [40 + 0xC3, 40 + 0xA9]),
    ],
    ids=[
        "a whole word",
        "a word of two",
        "the lowest rank first",
        "over a cut",
        "no merge over a gap",
        "a control token's name",
        "bytes",
    ],
)
def test_words_are_merged_in_the_order_of_their_ranks(small: Tokenizer, text: str, expected: list[int]) -> None:
    assert small.encode(text) == expected
    assert small.decode(expected) == text


def test_control_tokens_come_first_and_only_a_template_writes_them(small: Tokenizer) -> None:
    assert (small.eos, small.control_id("[THINK]"), small.n_words) == (2, 34, 40 + 261)
    assert names(small, small.encode_template("<s>[THINK]in")) == ["<s>", "[THINK]", "in"]
    assert small.control.isdisjoint(small.encode("<s>[THINK]in[/THINK]</s>"))


def test_a_control_token_that_a_model_lacks_is_named(small: Tokenizer) -> None:
    with pytest.raises(ModelError, match=r"no control token \[VIDEO\]"):
        small.control_id("[VIDEO]")


def test_the_version_and_the_marks_are_kept_where_it_is_saved(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    again = tokenizer_from_folder(tmp_path)
    assert (again.layout, again.marks, again.eos, again.bos) == ("v13", small.marks, 2, "<s>")
    assert again.encode("think [THINK] é") == small.encode("think [THINK] é")


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "😀\udc00"])
def test_half_a_surrogate_pair_is_an_error_that_says_where(small: Tokenizer, text: str) -> None:
    with pytest.raises(UserError, match=r"half a surrogate pair \(U\+D[0-9A-F]{3} at character [01]\)"):
        small.encode(text)


def broken(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    file = tekken.write_small(folder)
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return file


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("config"), "no whole tekken.json: KeyError: 'config'"),
        (lambda d: d.pop("vocab"), "KeyError: 'vocab'"),
        (lambda d: d["vocab"].pop(), "260 words of 261"),
        (lambda d: d["vocab"][5].update(rank=6), "their ranks have gaps"),
        (lambda d: d["vocab"][5].update(token_bytes="!!"), "no whole tekken.json"),
        (lambda d: d["vocab"][5].update(token_bytes="dGg="), "no whole tekken.json"),
        (lambda d: d["vocab"][0].update(token_bytes="eHl6"), "first 256 words are not the 256 bytes"),
        (lambda d: d["config"].update(version="v3"), "version 'v3'; what is covered: v7, v11, v13"),
        (lambda d: d["config"].update(default_vocab_size="many"), "no whole tekken.json"),
        (lambda d: d["config"].update(pattern="("), "tekken.json"),
        (lambda d: d["special_tokens"].append({"rank": 40, "token_str": "x"}), "control tokens are not whole"),
        (lambda d: d["special_tokens"][7].update(token_str="</s>"), "control tokens are not whole"),
        (lambda d: d.update(vocab=3), "no whole tekken.json"),
    ],
    ids=[
        *("no settings", "no words", "a word short", "a rank twice", "no base 64", "a word twice", "not all bytes"),
        *("another version", "no number", "a broken pattern", "too many control tokens", "one twice", "no list"),
    ],
)
def test_a_broken_file_is_an_error_that_says_what(tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        tokenizer_from_tekken(broken(tmp_path, change))


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "[" * 100_000], ids=["empty", "cut", "a list", "no JSON", "a tower"])
def test_a_file_that_is_no_such_json_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "tekken.json").write_text(text)
    with pytest.raises(ModelError, match=r"tekken\.json"):
        tokenizer_from_tekken(tmp_path / "tekken.json")


def test_a_file_without_a_list_of_control_tokens_has_the_twenty_of_old(tmp_path: Path) -> None:
    tokenizer = tokenizer_from_tekken(broken(tmp_path, lambda d: d.pop("special_tokens")))
    assert tokenizer.control_id("[TOOL_CONTENT]") == 19
    assert tokenizer.control_id("<SPECIAL_20>") == 20


def test_the_published_splits_of_the_marks_are_ours(ours: Tokenizer) -> None:
    """`<think>` is no token, and its last piece changes with what follows."""
    assert ours.encode("<think>") == [49250, 2077, 1062]
    assert ours.encode("<think>\n") == [49250, 2077, 1561]
    assert ours.encode("[THINK]") == [1091, 12001, 57142, 1093]


@pytest.mark.parametrize(
    "text",
    [
        "The sum of 12 and 345 is 357, naïve or not.",
        "  two\n\n  blanks\t and tabs \r\n",
        "数学は楽しい。Ещё раз! مرحبا",
        "👩\u200d🚀🙂 e\u0301 ﬁ \uff21",
        "def f(x):\n    return x ** 2  # é\n",
        "[THINK]a[/THINK]</s><s>[INST]",
        "\x00\x7f\u2028\ue000",
        "a/\n/b//\n",
        "1234567890.5e-10",
        "HTTPServer camelCase ÀÉÎ ǅ",
        "'S don't WE'RE",
    ],
)
def test_the_real_vocabulary_gives_the_ids_of_mistral_s_own_library(
    ours: Tokenizer, theirs: Callable[[str], list[int]], text: str
) -> None:
    assert ours.encode(text) == theirs(text)
    assert ours.decode(ours.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_the_ids_of_mistral_s_own_library(ours: Tokenizer, theirs: Callable[[str], list[int]], text: str) -> None:
    assert ours.encode(text) == theirs(text)
    assert ours.decode(ours.encode(text)) == text

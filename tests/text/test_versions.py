"""The versions of Magistral Small as data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import tekken

from magistral.errors import ModelError, UnknownName
from magistral.text.message import Message, ToolCall
from magistral.text.tekken import tokenizer_from_tekken
from magistral.text.template import conversation_tokens, prompt_tokens
from magistral.text.tokens import CONTROL, NORMAL, byte_tokenizer, tokenizer_from_gguf
from magistral.text.trace import THINK_TEXT, THINK_TOKENS, parse
from magistral.text.versions import VERSIONS, as_version, system_prompt, version_of

MAGISTRAL = [name for name in VERSIONS if name != "text"]


@pytest.mark.parametrize(
    ("name", "marks", "layout", "advised", "longest"),
    [
        ("magistral-small-2506", THINK_TEXT, "v11", 40_960, 40_960),
        ("magistral-small-2507", THINK_TOKENS, "v13", 40_960, 40_960),
        ("magistral-small-2509", THINK_TOKENS, "v13", 131_072, 131_072),
    ],
)
def test_each_version_has_what_its_card_says(name: str, marks: object, layout: str, advised: int, longest: int) -> None:
    v = version_of(name)
    assert (v.marks, v.layout, v.window, v.advised, v.max_tokens) == (marks, layout, 131_072, advised, longest)
    assert (v.temperature, v.top_p) == (0.7, 0.95)


def test_a_version_has_its_number_as_another_name() -> None:
    assert version_of("magistral-small-1.1") is version_of("magistral-small-2507")


@pytest.mark.parametrize("name", ["magistral-small", "Magistral-Small-2507", "my-magistral-small-2507-awq", ""])
def test_a_name_that_only_sounds_like_a_version_is_unknown(name: str) -> None:
    with pytest.raises(UnknownName, match=r"known: .*magistral-small-2507"):
        version_of(name)


@pytest.mark.parametrize("name", MAGISTRAL)
def test_a_prompt_shows_the_form_with_the_version_s_own_marks(name: str) -> None:
    version = version_of(name)
    for prompt in version.prompts.values():
        assert parse(prompt[prompt.index(version.marks.open) :], version.marks).well_formed
    assert "boxed" not in version.prompts["train"], "training must not forbid the box that the reward reads"


def test_the_folder_s_own_prompt_goes_first_for_people_and_not_for_training(tmp_path: Path) -> None:
    version = version_of("magistral-small-2507")
    assert system_prompt(version, "serve", tmp_path) == version.prompts["serve"]
    (tmp_path / "SYSTEM_PROMPT.txt").write_text("Its own: [THINK]x[/THINK]é", encoding="utf-8")
    assert system_prompt(version, "serve", tmp_path) == "Its own: [THINK]x[/THINK]é"
    assert system_prompt(version, "train", tmp_path) == version.prompts["train"]
    (tmp_path / "SYSTEM_PROMPT.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"SYSTEM_PROMPT\.txt cannot be read"):
        system_prompt(version, "serve", tmp_path)


def test_any_other_model_has_no_prompt_of_its_own() -> None:
    with pytest.raises(UnknownName, match=r"'text' has no system prompt.*write one as prompt\.system"):
        system_prompt(version_of("text"), "train")


def test_marks_that_a_model_s_words_do_not_have_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"control tokens \[THINK\] and \[/THINK\], which this model does not have"):
        as_version(byte_tokenizer(), version_of("magistral-small-2507"))
    assert as_version(byte_tokenizer(), version_of("magistral-small-2506")).marks == THINK_TEXT


def test_a_tokenizer_of_another_version_is_an_error(tmp_path: Path) -> None:
    v13 = tokenizer_from_tekken(tekken.write_small(tmp_path, "v13"))
    with pytest.raises(ModelError, match="tokenizer of version v11, and this model's is v13"):
        as_version(v13, version_of("magistral-small-2506"))
    with pytest.raises(ModelError, match="tokenizer of version v11, and this model's is v13"):
        as_version(tokenizer_from_gguf(gguf_fields(tmp_path, "v13")), version_of("magistral-small-2506"))
    assert as_version(v13, version_of("text")).marks == THINK_TEXT, "the version decides, not the file"


def gguf_fields(folder: Path, version: str = "v13") -> dict[str, Any]:
    """As llama.cpp's converter writes that vocabulary: no layout, and here no template."""
    backend = tokenizer_from_tekken(tekken.write_small(folder, version)).backend
    words = [str(backend.id_to_token(i)) for i in range(backend.get_vocab_size())]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [CONTROL] * 40 + [NORMAL] * (len(words) - 40),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


TOOL = {"type": "function", "function": {"name": "add"}}
ASKED = (
    Message(role="user", content="1+1?"),
    Message(role="assistant", calls=(ToolCall(name="add", arguments="{}", id="abcdefgh1"),)),
    Message(role="tool", content="2", call_id="abcdefgh1"),
)


@pytest.mark.parametrize(("name", "layout"), [("magistral-small-2506", "v11"), ("magistral-small-2507", "v13")])
def test_a_gguf_file_of_a_named_version_is_laid_out_as_the_native_folder_is(name: str, layout: str, tmp_path: Path) -> None:
    version = version_of(name)
    native = as_version(tokenizer_from_tekken(tekken.write_small(tmp_path, layout)), version)
    for template in (dict[str, str](), {"tokenizer.chat_template": "{{ messages[0].content }}"}):
        gguf = as_version(tokenizer_from_gguf({**gguf_fields(tmp_path, layout), **template}), version)
        ids = conversation_tokens(gguf, ASKED, [TOOL])
        assert ids == conversation_tokens(native, ASKED, [TOOL])
        assert gguf.control_id("[AVAILABLE_TOOLS]") in ids


def test_a_gguf_file_of_mistral_s_words_and_no_template_must_be_named(tmp_path: Path) -> None:
    gguf = tokenizer_from_gguf(gguf_fields(tmp_path))
    with pytest.raises(ModelError, match=r"no chat template.*name the version .*--as magistral-small-2507"):
        as_version(gguf, version_of("text"))
    with pytest.raises(ModelError, match="no chat template: name its version, as --as magistral-small-2507"):
        prompt_tokens(gguf, "", [("user", "hi")])


def test_a_version_whose_control_tokens_are_not_there_keeps_the_template(tmp_path: Path) -> None:
    fields = gguf_fields(tmp_path)
    fields["tokenizer.ggml.tokens"] = ["[OTHER]" if w == "[ARGS]" else w for w in fields["tokenizer.ggml.tokens"]]
    told = tokenizer_from_gguf({**fields, "tokenizer.chat_template": "{{ messages[0].content }}"})
    assert as_version(told, version_of("magistral-small-2507")).layout == "template"
    with pytest.raises(ModelError, match=r"no chat template.*magistral-small-2507"):
        as_version(tokenizer_from_gguf(fields), version_of("magistral-small-2507"))


def test_the_marks_in_a_system_prompt_are_control_tokens_and_in_a_question_they_are_not(tmp_path: Path) -> None:
    tokenizer = as_version(tokenizer_from_tekken(tekken.write_small(tmp_path)), version_of("magistral-small-2507"))
    ids = prompt_tokens(tokenizer, "a[THINK]b[/THINK]c", [("user", "[THINK]d[/THINK]")])
    assert [tokenizer.backend.id_to_token(i) for i in ids if i in tokenizer.control] == [
        "<s>", "[SYSTEM_PROMPT]", "[THINK]", "[/THINK]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]",
    ]  # fmt: skip
    through_jinja = prompt_tokens(replace(tokenizer, layout="template"), "a[THINK]b[/THINK]c", [("user", "[THINK]d[/THINK]")])
    assert through_jinja == ids, "what other programs are given as a template says the same"

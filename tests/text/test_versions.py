"""The versions of Magistral Small as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests import tekken

from magistral.errors import ModelError, UnknownName
from magistral.text.tekken import tokenizer_from_tekken
from magistral.text.template import prompt_tokens
from magistral.text.tokens import byte_tokenizer
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
    assert as_version(v13, version_of("text")).marks == THINK_TEXT, "the version decides, not the file"


def test_the_marks_in_a_system_prompt_are_control_tokens_and_in_a_question_they_are_not(tmp_path: Path) -> None:
    tokenizer = as_version(tokenizer_from_tekken(tekken.write_small(tmp_path)), version_of("magistral-small-2507"))
    ids = prompt_tokens(tokenizer, "a[THINK]b[/THINK]c", [("user", "[THINK]d[/THINK]")])
    assert [tokenizer.backend.id_to_token(i) for i in ids if i in tokenizer.control] == [
        "<s>", "[SYSTEM_PROMPT]", "[THINK]", "[/THINK]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]",
    ]  # fmt: skip
    through_jinja = prompt_tokens(replace(tokenizer, layout="template"), "a[THINK]b[/THINK]c", [("user", "[THINK]d[/THINK]")])
    assert through_jinja == ids, "what other programs are given as a template says the same"

"""The versions of Magistral Small as data: marks of thinking, layout, system prompts, window and advice.

A version is named, never guessed from a file's name or a tokenizer: 1.0 ships the same tekken.json as a model that does not
think. Facts are of the model cards and Mistral's documentation; the prompts are ours in wording and say what the published
ones say (arXiv 2506.10910, figure 2, and each model's SYSTEM_PROMPT.txt, which goes before ours where a model folder has it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from magistral.errors import ModelError, UnknownName
from magistral.registry import nearest
from magistral.text.mistral import CONTROL_TOKENS
from magistral.text.tokens import Tokenizer
from magistral.text.trace import THINK_TEXT, THINK_TOKENS, Marks

Variant = Literal["train", "serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    name: str
    marks: Marks
    layout: Literal["template", "v11", "v13"]
    """Of the conversation: Mistral's tokenizer version, or the model's own template."""
    prompts: Mapping[Variant, str]
    """System prompts: "train" as in RL (it lets the answer be boxed), "serve" as for people."""
    window: int
    """Tokens that the model was made for."""
    advised: int
    """Tokens up to which it is advised."""
    temperature: float
    top_p: float
    max_tokens: int
    """The longest answer that its card advises."""


_THINK = (
    "Begin with an inner monologue: work on the task step by step, as on scratch paper. Be as casual and as long as you want, "
    "and go on until you are sure of the answer. "
)
_LANGUAGE = "Think and answer in the language of the task."
_SUMMARY = (
    "After it write a short summary that stands alone: the main steps by which you came to the answer, and the answer itself, "
    "clearly stated. It must not mention the monologue. "
)
_TEXT_SPAN = "Write it in this form:\n<think>\nYour thoughts.\n</think>\nYour summary.\n\n"
_TOKEN_SPAN = "Write it in this form: [THINK]Your thoughts.[/THINK]Your answer.\n\n"
_MARKDOWN = "Write in Markdown, and formulas in LaTeX. "

_FIRST: dict[Variant, str] = {
    "train": _THINK + _MARKDOWN + _LANGUAGE + "\n\n" + _TEXT_SPAN + _SUMMARY + "\n\nProblem:",
    "serve": (
        _THINK + "Write in Markdown. " + _LANGUAGE + "\n\n" + _TEXT_SPAN + _SUMMARY
        + r"Do not call it a summary, and put no answer in \boxed{}." + "\n\nProblem:"
    ),
}  # fmt: skip
_LATER: dict[Variant, str] = {
    "train": _THINK + _MARKDOWN + _LANGUAGE + "\n\n" + _TOKEN_SPAN + _SUMMARY,
    "serve": (
        _THINK + _MARKDOWN + _LANGUAGE + "\n\n" + _TOKEN_SPAN
        + "After it write the answer for the reader: whole in itself, with what leads to it, as short as the task allows."
    ),
}  # fmt: skip
_LATEST: dict[Variant, str] = {variant: "# How to think and answer\n\n" + text for variant, text in _LATER.items()}

VERSIONS: dict[str, Version] = {
    version.name: version
    for version in (
        Version(
            name="text", marks=THINK_TEXT, layout="template", prompts={}, window=0, advised=0, temperature=0.7, top_p=0.95,
            max_tokens=0,
        ),
        Version(
            name="magistral-small-2506", marks=THINK_TEXT, layout="v11", prompts=_FIRST, window=131_072, advised=40_960,
            temperature=0.7, top_p=0.95, max_tokens=40_960,
        ),
        Version(
            name="magistral-small-2507", marks=THINK_TOKENS, layout="v13", prompts=_LATER, window=131_072, advised=40_960,
            temperature=0.7, top_p=0.95, max_tokens=40_960,
        ),
        Version(
            name="magistral-small-2509", marks=THINK_TOKENS, layout="v13", prompts=_LATEST, window=131_072, advised=131_072,
            temperature=0.7, top_p=0.95, max_tokens=131_072,
        ),
    )
}  # fmt: skip
"""`text` is any other model: its own template, thinking marked in plain text; its window and longest answer are its own (0)."""
ALIASES = {
    "magistral-small-1.0": "magistral-small-2506",
    "magistral-small-1.1": "magistral-small-2507",
    "magistral-small-1.2": "magistral-small-2509",
}


def version_of(name: str) -> Version:
    """Raises UnknownName listing what is known."""
    found = VERSIONS.get(ALIASES.get(name, name))
    if found is None:
        raise UnknownName(f"no version named {name!r}; {nearest(name, [*VERSIONS, *ALIASES])}")
    return found


def as_version(tokenizer: Tokenizer, version: Version) -> Tokenizer:
    """The tokenizer with that version's marks, and with its layout where the vocabulary has the control tokens for it: a GGUF
    file tells only a template, which has no place for tools.

    Raises ModelError where the model's words do not have the marks, or nothing says how a conversation is laid out."""
    if version.marks == THINK_TOKENS and not {version.marks.open, version.marks.close} <= tokenizer.special:
        raise ModelError(
            f"{version.name} marks thinking with the control tokens [THINK] and [/THINK], which this model does not have"
        )
    own = tokenizer.layout
    if own == "template" and CONTROL_TOKENS["v13"] <= tokenizer.special:  # no older vocabulary has [THINK]
        own = "v13"
    if version.layout != "template" and own not in ("template", version.layout):
        raise ModelError(f"{version.name} has a tokenizer of version {version.layout}, and this model's is {own}")
    needed = CONTROL_TOKENS.get(version.layout)
    if needed and needed <= tokenizer.special:
        return replace(tokenizer, marks=version.marks, layout=version.layout, bos="<s>")
    if tokenizer.layout == "template" and not tokenizer.chat_template:
        raise ModelError(
            f"the model names no chat template, and its words are not those of a known layout ({version.name}): name the version "
            "of Magistral Small that it is, as --as magistral-small-2507 (prompt.version in a recipe)"
        )
    return replace(tokenizer, marks=version.marks)


def system_prompt(version: Version, variant: Variant, folder: Path | None = None) -> str:
    """The model folder's own SYSTEM_PROMPT.txt for "serve" where it has one, else the version's.

    Training keeps its own: the published serving prompt of 1.0 forbids the box that the reward reads."""
    own = folder / "SYSTEM_PROMPT.txt" if folder is not None else None
    if variant == "serve" and own is not None and own.is_file():
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ModelError(f"{own} cannot be read: {e}") from None
    if variant not in version.prompts:
        raise UnknownName(f"the version {version.name!r} has no system prompt of its own: write one as prompt.system")
    return version.prompts[variant]

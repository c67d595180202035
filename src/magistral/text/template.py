"""A conversation as prompt tokens, through the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from magistral.errors import ModelError
from magistral.text.tokens import Tokenizer

# What stands for a message's text while the template runs. A template may not see the text itself: so no text can
# become a control token, and no template can be steered by it. Private-use characters occur in no template.
_HOLE = "\ue000{}\ue001"


def prompt_tokens(tokenizer: Tokenizer, system: str, messages: Sequence[tuple[str, str]]) -> list[int]:
    """`messages` are (role, text); a system text is put first unless empty. The answer comes next.

    Raises ModelError if the model's template refuses them."""
    turns = [("system", system), *messages] if system else list(messages)
    filled = [{"role": role, "content": _HOLE.format(i)} for i, (role, _) in enumerate(turns)]
    try:
        rendered = _render(tokenizer, filled)
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as e:  # what its own code may raise
        raise ModelError(f"the model's chat template failed: {e}") from None
    ids: list[int] = []
    for i, (_, text) in enumerate(turns):
        before, found, rendered = rendered.partition(_HOLE.format(i))
        if not found:
            raise ModelError("the model's chat template leaves out a message, or changes their order")
        ids += _own(tokenizer, before) + tokenizer.encode(text)
    return ids + _own(tokenizer, rendered)


def _render(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    """With the names that templates expect of transformers."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {
        "bos_token": tokenizer.bos,
        "eos_token": tokenizer.backend.id_to_token(tokenizer.eos),
        "raise_exception": _refuse,
    }
    return environment.from_string(tokenizer.chat_template).render(messages=messages, add_generation_prompt=True)


def _refuse(reason: str) -> None:
    raise jinja2.TemplateError(reason)


def _own(tokenizer: Tokenizer, text: str) -> list[int]:
    """A template's own text, in which control tokens count."""
    if "\ue000" in text:
        raise ModelError("the model's chat template repeats a message, or changes their order")
    return tokenizer.encode_template(text)

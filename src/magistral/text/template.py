"""A conversation as prompt tokens: by Mistral's own layout, or through the model's chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from magistral.errors import ModelError, UserError
from magistral.recipe import Prompt
from magistral.text.message import Message, Role, marked_tokens, pieces_tokens
from magistral.text.mistral import mistral_tokens
from magistral.text.tokens import Tokenizer

# What stands for a message's text while the template runs. A template may not see the text itself: so no text can
# become a control token, and no template can be steered by it. Private-use characters occur in no template.
_HOLE = "\ue000{}\ue001"


def prompt_tokens(tokenizer: Tokenizer, system: str, messages: Sequence[tuple[str, str]]) -> list[int]:
    """`messages` are (role, text); a system text is put first unless empty. The answer comes next.

    Raises ModelError if the model's template refuses them."""
    turns = [Message(role=cast(Role, role), content=text) for role, text in messages]
    return conversation_tokens(tokenizer, [Message(role="system", content=system), *turns] if system else turns)


def problem_tokens(tokenizer: Tokenizer, prompt: Prompt, question: str) -> tuple[int, ...]:
    """What a recipe's model reads before it works on a problem."""
    messages = [Message(role="system", content=prompt.system)] if prompt.system else []
    messages.append(Message(role="user", content=question))
    if prompt.begin_thinking:
        messages.append(Message(role="assistant", content=(("thinking", ""),), unfinished=True))
    return tuple(conversation_tokens(tokenizer, messages))


def conversation_tokens(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
    """The answer, or the rest of a last message that is `unfinished`, comes next.

    In a system text that is one string the marks of thinking count: it is the model's maker's. Elsewhere text is text.
    Raises ModelError if the model's template refuses the messages, UserError where they are no conversation."""
    if tokenizer.layout != "template":
        return mistral_tokens(tokenizer, messages, tools)
    if tools or any(m.role == "tool" or m.calls for m in messages):
        raise UserError("tools are covered for models with Mistral's own tokenizer (tekken.json), and this model has another")
    if not messages:
        raise UserError("a conversation needs a user's message")
    *earlier, last = messages
    unfinished = last.role == "assistant" and last.unfinished
    ids = _through_template(tokenizer, earlier if unfinished else messages)
    return ids + pieces_tokens(tokenizer, last) if unfinished else ids


def _through_template(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    if not tokenizer.chat_template:
        raise ModelError("the model names no chat template: name its version, as --as magistral-small-2507")
    filled = [{"role": message.role, "content": _HOLE.format(i)} for i, message in enumerate(messages)]
    try:
        rendered = _render(tokenizer, filled)
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as e:  # what its own code may raise
        raise ModelError(f"the model's chat template failed: {e}") from None
    ids: list[int] = []
    for i, message in enumerate(messages):
        before, found, rendered = rendered.partition(_HOLE.format(i))
        if not found:
            raise ModelError("the model's chat template leaves out a message, or changes their order")
        ids += _own(tokenizer, before)
        is_ours = message.role == "system" and isinstance(message.content, str)
        ids += marked_tokens(tokenizer, str(message.content)) if is_ours else pieces_tokens(tokenizer, message)
    return ids + _own(tokenizer, rendered)


def _render(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    """With the names that templates expect of transformers, which tells of tools and documents even where there are none."""
    ends = {"bos_token": tokenizer.bos, "eos_token": tokenizer.backend.id_to_token(tokenizer.eos)}
    template = _compiled(tokenizer.chat_template)
    return template.render(messages=messages, tools=None, documents=None, add_generation_prompt=True, **ends)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    """Some milliseconds: a request should not wait for it each time."""
    return _environment().from_string(template)


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers makes it: what a template may use is nowhere else written down."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return environment


class _Generation(Extension):
    """{% generation %}...{% endgeneration %} says what a trainer should learn; here it stands for what is inside."""

    tags = {"generation"}  # noqa: RUF012 - what it is in jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _to_json(
    value: object, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own writes for web pages: it escapes <, > and &."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _refuse(reason: str) -> None:
    raise jinja2.TemplateError(reason)


def _own(tokenizer: Tokenizer, text: str) -> list[int]:
    """A template's own text, in which control tokens count."""
    if "\ue000" in text:
        raise ModelError("the model's chat template repeats a message, or changes their order")
    return tokenizer.encode_template(text)

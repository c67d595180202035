"""Mistral's layouts: by hand with a small vocabulary, and token for token against Mistral's own library with the real one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import tekken

from magistral.errors import UserError
from magistral.text.message import Message, Piece, ToolCall
from magistral.text.tekken import tokenizer_from_tekken
from magistral.text.template import conversation_tokens
from magistral.text.tokens import Tokenizer, byte_tokenizer
from magistral.text.trace import THINK_TOKENS

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds é.", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now", "parameters": {}}}
BARE = {"type": "function", "function": {"name": "now"}}
SYSTEM = Message(role="system", content="sys")
FIRST, SECOND = (
    ToolCall(name="add", arguments='{"a": 1,"b":"é"}', id="abcdefgh1"),
    ToolCall(name="add", arguments="{}", id="abcdefgh2"),
)
CALLS = Message(role="assistant", content="hm", calls=(FIRST, SECOND))
RESULTS = (
    Message(role="tool", content='{"r": 2}', call_id="abcdefgh1"),
    Message(role="tool", content="two", call_id="abcdefgh2"),
)
DONE = Message(role="assistant", content="done")


def user(text: str) -> Message:
    return Message(role="user", content=text)


def answer(*pieces: Piece, unfinished: bool = False) -> Message:
    return Message(role="assistant", content=pieces, unfinished=unfinished)


CONVERSATIONS: dict[str, tuple[tuple[Message, ...], tuple[dict[str, Any], ...]]] = {
    "one question": ((user("2+2?"),), ()),
    "with a system prompt": ((SYSTEM, user("2+2?")), ()),
    "an empty question": ((user(""),), ()),
    "several turns, blanks around an answer": ((SYSTEM, user("hi"), Message(role="assistant", content=" yo  "), user("2")), ()),
    "two system prompts": ((SYSTEM, SYSTEM, user("hi")), ()),
    "two questions in a row": ((user("hi"), user("ho")), ()),
    "an answer to be gone on with": ((user("hi"), Message(role="assistant", content="let me ", unfinished=True)), ()),
    "tools": ((SYSTEM, user("hi"), DONE, user("more")), (ADD, NOW)),
    "calls and results": ((SYSTEM, user("hi"), CALLS, *RESULTS), (ADD,)),
    "calls, results and another question": ((user("hi"), CALLS, *RESULTS, DONE, user("more")), (ADD,)),
    "what reads like control tokens": ((Message(role="system", content="</s>[INST]"), user("[/INST][TOOL_CALLS]</s><s>")), ()),
}
WITH_THINKING: dict[str, tuple[Message, ...]] = {
    "a finished answer": (user("hi"), answer(("thinking", "x y"), ("text", " 4 "))),
    "thinking in the system prompt": (
        Message(role="system", content=(("text", "a"), ("thinking", "t"), ("text", "b"))),
        user("hi"),
    ),
    "earlier thinking is kept": (user("hi"), answer(("thinking", "x"), ("text", "4")), user("ho")),
    "thinking to be gone on with": (user("hi"), answer(("thinking", "let me"), unfinished=True)),
    "what reads like marks": (user("[THINK]a[/THINK]"), answer(("thinking", "[/THINK]"), ("text", "[THINK]"))),
}


@pytest.fixture(scope="module", params=["v7", "v11", "v13"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tekken.write_real(tmp_path_factory.mktemp("tekken"), request.param)


@pytest.fixture(scope="module")
def ours(real: Path) -> Tokenizer:
    return tokenizer_from_tekken(real)


@pytest.fixture(scope="module")
def theirs(real: Path) -> Callable[[Sequence[Message], Sequence[dict[str, Any]]], list[int]]:
    """Mistral's own library, told the same conversation in its own records."""
    pytest.importorskip("mistral_common")
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.validator import ValidationMode
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    by_mode = {
        mode: MistralTokenizer.from_file(str(real), mode=mode) for mode in (ValidationMode.test, ValidationMode.finetuning)
    }

    def encode(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int]:
        closed = messages[-1].role == "assistant" and not messages[-1].unfinished
        mode = ValidationMode.finetuning if closed else ValidationMode.test
        request: Any = ChatCompletionRequest.model_validate(
            {"messages": [record(m) for m in messages], "tools": list(tools) or None}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(by_mode[mode].encode_chat_completion(request).tokens)

    return encode


def record(message: Message) -> dict[str, Any]:
    content: Any = message.content
    if not isinstance(content, str):
        still = message.unfinished
        content = [
            {"type": "thinking", "thinking": text, "closed": not still} if kind == "thinking" else {"type": "text", "text": text}
            for kind, text in content
        ]
    out: dict[str, Any] = {"role": message.role, "content": content}
    if message.calls:
        out["tool_calls"] = [{"id": c.id, "function": {"name": c.name, "arguments": c.arguments}} for c in message.calls]
    if message.role == "tool":
        out["tool_call_id"] = message.call_id
    if message.unfinished:
        out["prefix"] = True
    return out


@pytest.mark.parametrize(("messages", "tools"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_conversation_is_laid_out_as_mistral_s_own_library_does(
    ours: Tokenizer, theirs: Callable[..., list[int]], messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...]
) -> None:
    if ours.layout == "v7" and (tools or any(m.calls for m in messages)):
        with pytest.raises(UserError, match="this model's is v7"):
            conversation_tokens(ours, messages, tools)
        return
    assert conversation_tokens(ours, messages, tools) == theirs(messages, tools)


@pytest.mark.parametrize("messages", WITH_THINKING.values(), ids=WITH_THINKING)
def test_thinking_is_laid_out_as_mistral_s_own_library_does(
    ours: Tokenizer, theirs: Callable[..., list[int]], messages: tuple[Message, ...]
) -> None:
    if ours.layout != "v13":
        pytest.skip("the library knows no thinking before v13")
    assert conversation_tokens(ours, messages) == theirs(messages, ())


@pytest.fixture(scope="module")
def v11(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_tekken(tekken.write_small(tmp_path_factory.mktemp("v11"), "v11"))


@pytest.fixture(scope="module")
def v13(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_tekken(tekken.write_small(tmp_path_factory.mktemp("v13"), "v13"))


def laid_out(tokenizer: Tokenizer, *messages: Message, tools: Sequence[dict[str, Any]] = ()) -> str:
    return tokenizer.decode(conversation_tokens(tokenizer, messages, tools))


def test_the_layouts_by_hand(v11: Tokenizer, v13: Tokenizer) -> None:
    tool = '{"type": "function", "function": {"name": "now", "description": "", "parameters": {}}}'
    tools = f"[AVAILABLE_TOOLS][{tool}][/AVAILABLE_TOOLS]"
    call = Message(role="assistant", calls=(ToolCall(name="now", arguments="{}", id="c1"),))
    told = (SYSTEM, user("a"), call, Message(role="tool", content="noon", call_id="c1"), DONE, user("b"))
    assert laid_out(v11, *told, tools=[BARE]) == (
        "<s>[SYSTEM_PROMPT]sys[/SYSTEM_PROMPT][INST]a[/INST][TOOL_CALLS]now[CALL_ID]c1[ARGS]{}</s>"
        f"[TOOL_RESULTS]c1[TOOL_CONTENT]noon[/TOOL_RESULTS]done</s>{tools}[INST]b[/INST]"
    )
    assert laid_out(v13, *told, tools=[BARE]) == (
        f"<s>[SYSTEM_PROMPT]sys[/SYSTEM_PROMPT]{tools}[INST]a[/INST][TOOL_CALLS]now[ARGS]{{}}</s>"
        "[TOOL_RESULTS]noon[/TOOL_RESULTS]done</s>[INST]b[/INST]"
    )


def test_magistral_1_0_writes_its_marks_as_text_each_on_a_line(v11: Tokenizer) -> None:
    four = answer(("thinking", "2 and 2"), ("text", "4"))
    assert laid_out(v11, user("a"), four, user("b")) == "<s>[INST]a[/INST]<think>\n2 and 2\n</think>\n4</s>[INST]b[/INST]"
    begun = answer(("thinking", ""), unfinished=True)
    assert laid_out(v11, user("a"), begun) == "<s>[INST]a[/INST]<think>\n"


BROKEN: dict[str, tuple[tuple[Message, ...], tuple[dict[str, Any], ...], str]] = {
    "nothing": ((), (), "needs a user's message"),
    "a system prompt alone": ((SYSTEM,), (), "needs a user's message"),
    "an answer first": ((DONE,), (), "'assistant' cannot follow nothing"),
    "two answers": ((user("a"), DONE, DONE), (), "'assistant' cannot follow 'assistant'"),
    "a late system prompt": ((user("a"), SYSTEM), (), "'system' cannot follow 'user'"),
    "a result without a call": ((user("a"), DONE, *RESULTS), (), "must answer a call"),
    "a question that thinks": ((Message(role="user", content=(("thinking", "x"),)),), (), "no place in a message of role 'user'"),
    "an unfinished answer in between": ((user("a"), answer(unfinished=True), user("b")), (), "only a last assistant message"),
    "arguments cut short": (
        (user("a"), Message(role="assistant", calls=(ToolCall(name="f", arguments="{"),))),
        (),
        "arguments of the call of 'f' are no JSON",
    ),
    "another kind of tool": ((user("a"),), ({"type": "web_search"},), "a tool must be"),
    "a tool without a name": ((user("a"),), ({"type": "function", "function": {}},), "a tool must be"),
    "no Unicode": ((user("\ud800"),), (), "half a surrogate pair"),
}


@pytest.mark.parametrize(("messages", "tools", "says"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_conversation_is_an_error(
    v13: Tokenizer, messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        conversation_tokens(v13, messages, tools)


def test_a_model_with_a_template_of_its_own_takes_no_tools() -> None:
    with pytest.raises(UserError, match="tools are covered for models with Mistral's own tokenizer"):
        conversation_tokens(byte_tokenizer(), [user("a")], [BARE])


def test_through_a_template_an_unfinished_answer_is_gone_on_with() -> None:
    begun = answer(("thinking", "so"), unfinished=True)
    assert laid_out(byte_tokenizer(), user("a"), begun) == "a\n<think>\nso"
    assert laid_out(byte_tokenizer(), user("a"), answer(("thinking", "so"), ("text", "4"))) == "a\n<think>\nso\n</think>\n4\n"


def test_marks_are_tokens_only_where_the_model_has_both(v11: Tokenizer, v13: Tokenizer) -> None:
    assert (v11.marks_are_tokens, v13.marks_are_tokens) == (False, True)
    assert not replace(v11, marks=THINK_TOKENS).marks_are_tokens

"""The official clients against the server on a real socket: thinking and answer in their places, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import mistralai.client
import openai
import pytest

from tests.serve.fakes import ANSWER, Scripted, serving

THINKING, SAID = "17 * 23 = 391, é", "It is 391 🎉."
QUESTION: list[Any] = [{"role": "user", "content": "17 * 23?"}]
CALL = '<think>\nI need a tool\n</think>\n[TOOL_CALLS]multiply[ARGS]{"a": 17, "b": 23}'
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}


def say(prompt: str) -> str:
    if prompt.endswith("multiply[ARGS]{"):  # a call that is demanded, begun by the server
        return '"a": 17, "b": 23}'
    return CALL if '"multiply"' in prompt and "391" not in prompt else ANSWER


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Scripted(say)) as address:
        yield address


@pytest.fixture(scope="module")
def of_openai(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def of_mistral(url: str) -> Iterator[mistralai.client.Mistral]:
    with mistralai.client.Mistral(server_url=url, api_key="none") as client:
        yield client


@pytest.fixture(scope="module")
def of_anthropic(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_openai_chat_whole(of_openai: openai.OpenAI) -> None:
    reply = of_openai.chat.completions.create(model="tiny", messages=QUESTION, logprobs=True)
    (choice,) = reply.choices
    assert (choice.message.content, choice.finish_reason) == (SAID, "stop")
    more: Any = choice.message
    assert more.reasoning_content == more.reasoning == THINKING
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == len(f"<think>\n{THINKING}\n</think>".encode())
    assert choice.logprobs is not None
    assert b"".join(bytes(t.bytes or []) for t in choice.logprobs.content or []).decode()
    assert {t.logprob for t in choice.logprobs.content or []} == {-0.5}


def test_openai_chat_streamed(of_openai: openai.OpenAI) -> None:
    text = thinking = ""
    chunks = list(
        of_openai.chat.completions.create(model="tiny", messages=QUESTION, stream=True, stream_options={"include_usage": True})
    )
    for chunk in chunks:
        for choice in chunk.choices:
            delta: Any = choice.delta
            assert not (delta.content and getattr(delta, "reasoning", None)), "no delta is of two phases"
            text += delta.content or ""
            thinking += getattr(delta, "reasoning_content", None) or ""
    assert (text, thinking) == (SAID, THINKING)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_openai_s_own_accumulator_of_a_stream(of_openai: openai.OpenAI) -> None:
    with of_openai.chat.completions.stream(model="tiny", messages=QUESTION) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == SAID


def test_openrouter_s_fields_through_the_openai_client(of_openai: openai.OpenAI) -> None:
    def message(**reasoning: Any) -> Any:
        reply = of_openai.chat.completions.create(model="tiny", messages=QUESTION, extra_body={"reasoning": reasoning})
        return reply.choices[0].message

    details = {"type": "reasoning.text", "text": THINKING, "format": "unknown", "index": 0}
    assert message(effort="high").reasoning_details == [details]
    assert not hasattr(message(exclude=True), "reasoning")


def test_openai_completions(of_openai: openai.OpenAI) -> None:
    reply = of_openai.completions.create(model="tiny", prompt="17 * 23?", max_tokens=100)
    assert reply.choices[0].text == ANSWER, "no phases: the marks stay"
    chunks = of_openai.completions.create(model="tiny", prompt="17 * 23?", max_tokens=100, stream=True)
    assert "".join(c.choices[0].text for c in chunks) == ANSWER


def test_openai_tools_whole_and_streamed_and_their_result(of_openai: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "multiply", "parameters": PARAMETERS}}]
    reply = of_openai.chat.completions.create(model="tiny", messages=QUESTION, tools=tools)
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("multiply", {"a": 17, "b": 23})
    with of_openai.chat.completions.stream(model="tiny", messages=QUESTION, tools=tools) as stream:
        final = stream.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls or []
    assert json.loads(streamed.function.arguments) == {"a": 17, "b": 23}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "391"}
    said: Any = choice.message.model_dump(exclude_none=True)
    reply = of_openai.chat.completions.create(model="tiny", messages=[*QUESTION, said, result], tools=tools)
    assert reply.choices[0].message.content == SAID


def test_openai_responses_whole(of_openai: openai.OpenAI) -> None:
    reply = of_openai.responses.create(model="tiny", input="17 * 23?", instructions="be brief")
    assert (reply.output_text, reply.status) == (SAID, "completed")
    reasoning = reply.output[0]
    assert reasoning.type == "reasoning"
    assert [c.text for c in reasoning.content or []] == [THINKING]
    assert reply.usage is not None
    assert reply.usage.output_tokens_details.reasoning_tokens > 0
    again: Any = [*QUESTION, *[item.model_dump(exclude_none=True) for item in reply.output], {"role": "user", "content": "sure?"}]
    assert of_openai.responses.create(model="tiny", input=again).output_text == SAID


def test_openai_responses_streamed(of_openai: openai.OpenAI) -> None:
    events = list(of_openai.responses.create(model="tiny", input="17 * 23?", stream=True))
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == THINKING
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == SAID
    assert [e.sequence_number for e in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == SAID
    with of_openai.responses.stream(model="tiny", input="17 * 23?") as stream:
        assert stream.get_final_response().output_text == SAID


def test_openai_responses_say_when_tokens_ran_out(of_openai: openai.OpenAI) -> None:
    reply = of_openai.responses.create(model="tiny", input="17 * 23?", max_output_tokens=12)
    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"


def mistral_parts(content: Any) -> tuple[str, str]:
    """Thinking and text of a content of any form."""
    if isinstance(content, str):
        return "", content
    thinking = "".join(p.text for chunk in content or [] if chunk.type == "thinking" for p in chunk.thinking)
    return thinking, "".join(chunk.text for chunk in content or [] if chunk.type == "text")


def test_mistral_chat_whole(of_mistral: mistralai.client.Mistral) -> None:
    reply = of_mistral.chat.complete(model="tiny", messages=QUESTION, random_seed=7)
    (choice,) = reply.choices
    assert choice.message is not None
    assert mistral_parts(choice.message.content) == (THINKING, SAID)
    assert choice.finish_reason == "stop"
    follow: Any = [*QUESTION, choice.message, {"role": "user", "content": "sure?"}]
    again = of_mistral.chat.complete(model="tiny", messages=follow)
    assert again.choices[0].message is not None
    assert mistral_parts(again.choices[0].message.content)[1] == SAID


def test_mistral_chat_streamed_as_the_api_does_it(of_mistral: mistralai.client.Mistral) -> None:
    chunks = [event.data for event in of_mistral.chat.stream(model="tiny", messages=QUESTION)]
    contents = [c.choices[0].delta.content for c in chunks]
    assert contents[0] == ""
    forms = "".join("s" if isinstance(c, str) else "l" * len(c) for c in contents[1:])
    assert forms.strip("s").strip("l") == "", "lists, then strings"
    parts = [mistral_parts(c) for c in contents]
    assert ("".join(t for t, _ in parts), "".join(a for _, a in parts)) == (THINKING, SAID)
    assert chunks[-1].usage is not None
    assert all(c.usage is None for c in chunks[:-1])


def test_mistral_tools(of_mistral: mistralai.client.Mistral) -> None:
    tools: Any = [{"type": "function", "function": {"name": "multiply", "parameters": PARAMETERS}}]
    reply = of_mistral.chat.complete(model="tiny", messages=QUESTION, tools=tools, tool_choice="any")
    message = reply.choices[0].message
    assert message is not None
    assert [c.function.name for c in message.tool_calls or []] == ["multiply"]
    assert mistral_parts(message.content)[0] == "I need a tool"


def test_anthropic_messages_whole(of_anthropic: anthropic.Anthropic) -> None:
    reply = of_anthropic.messages.create(
        model="tiny", messages=QUESTION, max_tokens=400, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    first, second = reply.content
    assert first.type == "thinking"
    assert second.type == "text"
    assert (first.thinking, second.text, reply.stop_reason) == (THINKING, SAID, "end_turn")
    follow: Any = [*QUESTION, {"role": "assistant", "content": reply.content}, {"role": "user", "content": "sure?"}]
    assert of_anthropic.messages.create(model="tiny", messages=follow, max_tokens=400).content[-1].type == "text"
    assert of_anthropic.messages.count_tokens(model="tiny", messages=QUESTION).input_tokens == len("17 * 23?\n")


def test_anthropic_messages_streamed(of_anthropic: anthropic.Anthropic) -> None:
    with of_anthropic.messages.stream(model="tiny", messages=QUESTION, max_tokens=400) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert [b.type for b in final.content] == ["thinking", "text"]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert (final.usage.input_tokens, final.usage.output_tokens) == (9, len(ANSWER.encode()) + 1)


def test_anthropic_tools_and_stop_sequences(of_anthropic: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "multiply", "input_schema": PARAMETERS}]
    with of_anthropic.messages.stream(model="tiny", messages=QUESTION, max_tokens=400, tools=tools) as stream:
        final = stream.get_final_message()
    call = final.content[-1]
    assert call.type == "tool_use"
    assert (call.input, final.stop_reason) == ({"a": 17, "b": 23}, "tool_use")
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "391"}]}
    follow: Any = [*QUESTION, {"role": "assistant", "content": final.content}, result]
    reply = of_anthropic.messages.create(model="tiny", messages=follow, max_tokens=400, tools=tools, stop_sequences=["391"])
    last = reply.content[-1]
    assert last.type == "text"
    assert (last.text, reply.stop_reason, reply.stop_sequence) == ("It is ", "stop_sequence", "391")


def test_every_client_lists_the_models(
    of_openai: openai.OpenAI, of_mistral: mistralai.client.Mistral, of_anthropic: anthropic.Anthropic
) -> None:
    assert [m.id for m in of_openai.models.list()] == ["tiny"]
    assert [m.id for m in of_anthropic.models.list()] == ["tiny"]
    cards: Any = of_mistral.models.list().data
    assert [card.id for card in cards] == ["tiny"]


def test_every_client_reads_its_own_errors(
    of_openai: openai.OpenAI, of_mistral: mistralai.client.Mistral, of_anthropic: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.NotFoundError) as of_chat:
        of_openai.chat.completions.create(model="huge", messages=QUESTION)
    assert of_chat.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        of_openai.responses.create(model="tiny", input="?", temperature=9)
    with pytest.raises(anthropic.NotFoundError, match="no model named"):
        of_anthropic.messages.create(model="huge", messages=QUESTION, max_tokens=5)
    with pytest.raises(anthropic.BadRequestError, match="over the window"):
        of_anthropic.messages.create(model="tiny", messages=QUESTION, max_tokens=5_000)
    with pytest.raises(mistralai.client.errors.HTTPValidationError) as of_mistral_s:
        of_mistral.chat.complete(model="tiny", messages=QUESTION, temperature=9)
    assert of_mistral_s.value.status_code == 422

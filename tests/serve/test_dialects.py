"""One stream of events in every dialect, whole and streamed: the same text, the same calls, the same usage."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral.serve.dialects import DIALECTS, Reply
from magistral.serve.errors import STATUS, Refused
from magistral.serve.events import Ask, Call, End, Ended, Event, Failed, Note, Piece, Started, Token, ToolCall, Usage, Whole
from magistral.serve.service import Service
from tests.serve.fakes import Scripted, served, serving
from tests.serve.said import READERS, Said


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """What one completion may come as: thinking or none, answer or none, calls or none, cut anywhere."""
    texts = st.lists(st.text(min_size=1, max_size=6), max_size=5)
    thinking, answer = draw(texts), draw(texts)
    arguments = st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2).map(json.dumps)
    calls = draw(st.lists(st.tuples(st.sampled_from(["x1", "x2"]), st.sampled_from(["f", "g"]), arguments), max_size=2))
    n_prompt, n_thinking, n_answer = draw(st.tuples(*[st.integers(1, 99)] * 3))
    end = End.TOOLS if calls else draw(st.sampled_from([End.STOP, End.LENGTH, End.LOOP]))
    events: list[Event] = [Started(index=0, n_prompt=n_prompt)]
    events += [Piece(index=0, phase="thinking", text=text) for text in thinking]
    if draw(st.booleans()):
        events.append(Note(index=0, kind="budget", text="closed"))
    events += [Piece(index=0, phase="answer", text=text, tokens=(Token(id=1, text=text, logprob=-1.0),)) for text in answer]
    events += [ToolCall(index=0, call=Call(id=i, name=name, arguments=text)) for i, name, text in calls]
    usage = Usage(prompt=n_prompt, thinking=n_thinking, answer=n_answer)
    return [*events, Ended(index=0, end=end, usage=usage, in_thinking=not answer and not calls and bool(thinking))]


@given(streams())
def test_every_dialect_says_the_same_whole_and_streamed(events: list[Event]) -> None:
    whole = Whole(index=0)
    for event in events:
        whole.add(event)
    assert whole.ended is not None
    usage = whole.ended.usage
    calls = tuple((c.id, c.name, c.arguments) for c in whole.calls)
    expected = Said(whole.thinking, whole.answer, calls, usage.prompt, usage.completion, usage.thinking)
    for name, (of_whole, of_stream) in READERS.items():
        dialect = DIALECTS[name]
        reply = Reply(id="1", model="m", created=1, ask=Ask(stream=True))
        sent = json.loads(json.dumps(dialect.whole(reply, [whole])))
        assert of_whole(sent) == expected, name
        renderer = dialect.stream(reply)
        assert of_stream([sse for event in events for sse in renderer.feed(event)]) == expected, name


@pytest.mark.parametrize("name", list(READERS))
def test_a_failure_in_a_stream_is_said_in_the_dialect_s_own_form(name: str) -> None:
    renderer = DIALECTS[name].stream(Reply(id="1", model="m", created=1, ask=Ask()))
    (sse,) = renderer.feed(Failed(message="out of memory"))
    assert "out of memory" in json.dumps(sse.data)


def test_tags_hold_the_same_text_as_chunks() -> None:
    events: list[Event] = [
        Started(index=0, n_prompt=1),
        Piece(index=0, phase="thinking", text="hm"),
        Piece(index=0, phase="answer", text="4"),
        Ended(index=0, end=End.STOP, usage=Usage(prompt=1)),
    ]
    reply = Reply(id="1", model="m", created=1, ask=Ask(shape={"format": "tags"}))
    renderer = DIALECTS["mistral"].stream(reply)
    datas = [sse.data for event in events for sse in renderer.feed(event) if isinstance(sse.data, dict)]
    assert "".join(d["choices"][0]["delta"]["content"] for d in datas) == "<think>\nhm\n</think>\n4"


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("body", "start", "budget"),
    [
        ({}, "free", None),
        ({"reasoning_effort": "none"}, "answer", 0),
        ({"reasoning_effort": "low", "max_tokens": 100}, "free", 25),
        ({"reasoning_effort": "medium"}, "free", 300),
        ({"reasoning_effort": "high"}, "free", None),
        ({"reasoning": {"max_tokens": 7}}, "free", 7),
        ({"reasoning": {"enabled": False}}, "answer", 0),
        ({"reasoning": {"effort": "high"}, "thinking_budget": 9}, "free", 9),
        ({"thinking_budget": 0}, "answer", 0),
        ({"flash": True, "thinking_budget": 9}, "answer", 0),
    ],
    ids=["nothing said", "none", "a quarter", "half of the server's own", "high", "tokens", "off", "ours first", "0", "flash"],
)
def test_effort_becomes_a_start_and_a_budget(body: dict[str, Any], start: str, budget: int | None) -> None:
    ask = DIALECTS["openai"].read({"messages": [USER], **body})
    (job,) = Service([served(Scripted(), max_tokens=600)]).open(ask).jobs
    assert (ask.start, job.phases.terms.thinking_budget) == (start, budget)


def test_null_is_absent_at_every_depth_but_in_what_is_the_caller_s_own() -> None:
    function = {"name": "f", "strict": None, "description": None, "parameters": {"properties": {"a": {"default": None}}}}
    for dialect, tool in (
        ("openai", {"type": "function", "function": function}),
        ("responses", {"type": "function", **function}),
    ):
        body = {"messages": [USER], "input": "hi", "tools": [tool], "reasoning": {"exclude": None, "effort": None}}
        (read,) = DIALECTS[dialect].read(body).tools
        assert (read.name, read.strict, read.parameters) == ("f", False, function["parameters"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [('{"a": 1}', {"a": 1}), ('{"a": ', {"arguments": '{"a": '}), ("[1]", {"arguments": "[1]"})],
    ids=["an object", "cut off", "a list"],
)
def test_arguments_that_are_no_object_stand_in_one_where_the_form_has_objects(arguments: str, said: dict[str, Any]) -> None:
    reply = Reply(id="1", model="m", created=1, ask=Ask())
    whole = Whole(index=0)
    whole.add(ToolCall(index=0, call=Call(id="c", name="f", arguments=arguments)))
    whole.add(Ended(index=0, end=End.TOOLS, usage=Usage(prompt=1)))
    (block,) = DIALECTS["anthropic"].whole(reply, [whole])["content"]
    assert block["input"] == said


def test_what_mistral_s_form_has_no_place_for_is_named() -> None:
    body = {"messages": [USER], "logprobs": True, "top_logprobs": 2, "max_completion_tokens": 9, "surprise": 1}
    assert DIALECTS["mistral"].read(body).ignored == ("surprise", "logprobs", "max_completion_tokens", "top_logprobs")


@pytest.mark.parametrize("dialect", ["mistral", "openai"])
def test_calls_of_each_completion_are_counted_from_nothing(dialect: str) -> None:
    renderer = DIALECTS[dialect].stream(Reply(id="1", model="m", created=1, ask=Ask(stream=True, n=2)))
    found = []
    for i in (0, 1, 0):
        (*_, last) = renderer.feed(ToolCall(index=i, call=Call(id="c", name="f", arguments="{}")))
        assert isinstance(last.data, dict)
        found.append(last.data["choices"][0]["delta"]["tool_calls"][0]["index"])
    assert found == [0, 0, 1]


def test_notes_stand_in_the_last_chunk_of_plain_completions() -> None:
    renderer = DIALECTS["completions"].stream(Reply(id="1", model="m", created=1, ask=Ask(stream=True, usage_in_stream=False)))
    renderer.feed(Note(index=0, kind="long_prompt", text="long"))
    (last, done) = renderer.feed(Ended(index=0, end=End.STOP, usage=Usage(prompt=1)))
    assert isinstance(last.data, dict)
    assert (last.data["magistral"]["notes"][0]["kind"], done.data) == ("long_prompt", "[DONE]")


def test_mistral_s_answers_begin_with_the_prefix() -> None:
    with serving(Scripted(lambda _: " 391.")) as url:
        body = {"messages": [USER, {"role": "assistant", "content": "It is", "prefix": True}]}
        said = httpx.post(f"{url}/mistral/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        assert said == "It is 391."
        lines = httpx.post(f"{url}/mistral/v1/chat/completions", json={**body, "stream": True}).text.splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == said


@pytest.mark.parametrize(
    ("body", "default"),
    [({}, True), ({"prompt_mode": "reasoning"}, True), ({"prompt_mode": None}, False)],
    ids=["absent", "reasoning", "null"],
)
def test_a_prompt_mode_of_null_is_not_an_absent_one(body: dict[str, Any], default: bool) -> None:
    assert DIALECTS["mistral"].read({"messages": [USER], **body}).default_system is default


ASSISTANT: dict[str, Any] = {
    "tags in a string": {"content": "<think>\nhm\n</think>\n4"},
    "a list of lists, as on Mistral's wire": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True},
            {"type": "text", "text": "4"},
        ]
    },
    "a list with a string, as mistral-common has it": {
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}]
    },
    "a field of its own": {"content": "4", "reasoning_content": "hm"},
    "the other field": {"content": "4", "reasoning": "hm"},
    "details": {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}], "content": "4"},
}


@pytest.mark.parametrize("message", ASSISTANT.values(), ids=ASSISTANT)
@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_thinking_in_a_history_is_read_in_every_form(dialect: str, message: dict[str, Any]) -> None:
    ask = DIALECTS[dialect].read({"messages": [USER, {"role": "assistant", **message}, USER]})
    assert (ask.turns[1].thinking, ask.turns[1].text) == ("hm", "4")


def test_a_last_message_marked_prefix_is_what_the_answer_begins_with() -> None:
    ask = DIALECTS["mistral"].read({"messages": [USER, {"role": "assistant", "content": "It is", "prefix": True}]})
    assert ([t.text for t in ask.turns], ask.prefix) == (["hi"], "It is")
    ask = DIALECTS["anthropic"].read({"messages": [USER, {"role": "assistant", "content": "It is"}], "max_tokens": 9})
    assert ([t.text for t in ask.turns], ask.prefix) == (["hi"], "It is")


@pytest.mark.parametrize("dialect", ["mistral", "anthropic"])
def test_thinking_in_such_a_message_is_kept(dialect: str) -> None:
    begun: dict[str, Any] = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": ""}],
    }
    begun |= {"prefix": True} if dialect == "mistral" else {}
    ask = DIALECTS[dialect].read({"messages": [USER, begun], "max_tokens": 9})
    assert (ask.prefix_thinking, ask.prefix, len(ask.turns)) == ("hm", "", 1)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no messages": ("openai", {}, "messages"),
    "an empty list": ("openai", {"messages": []}, "messages"),
    "a role of nobody": ("openai", {"messages": [{"role": "boss", "content": "x"}]}, "messages.0.role"),
    "a picture": ("openai", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
    "thinking of the user": ("mistral", {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]}, ""),
    "a number as text": ("openai", {"messages": [{"role": "user", "content": 5}]}, "messages.0.content.str"),
    "a string as number": ("openai", {"messages": [USER], "max_tokens": "9"}, "max_tokens"),
    "hot": ("openai", {"messages": [USER], "temperature": 2.1}, "temperature"),
    "a penalty that cannot be": ("openai", {"messages": [USER], "frequency_penalty": 1.0}, "frequency_penalty"),
    "a form that is none": ("openai", {"messages": [USER], "response_format": {"type": "regex"}}, "response_format"),
    "a schema that is none": ("openai", {"messages": [USER], "response_format": {"type": "json_schema"}}, "response_format"),
    "a form of a response": ("responses", {"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format"),
    "likeliest without log-probabilities": ("openai", {"messages": [USER], "top_logprobs": 2}, "top_logprobs"),
    "the assistant's turn was last": ("openai", {"messages": [USER, {"role": "assistant", "content": "a"}]}, "messages"),
    "a tool that is not there": ("openai", {"messages": [USER], "tool_choice": "required"}, "tool_choice"),
    "two that differ": (
        "openai",
        {"messages": [USER, {"role": "assistant", "content": "a", "reasoning": "b", "reasoning_content": "c"}, USER]},
        "messages.1.reasoning",
    ),
    "no max_tokens": ("anthropic", {"messages": [USER]}, "max_tokens"),
    "a system role": ("anthropic", {"messages": [{"role": "system", "content": "x"}], "max_tokens": 5}, "messages.0.role"),
    "a kept response": ("responses", {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    "several prompts": ("completions", {"prompt": ["a", "b"]}, "prompt"),
    "too many": ("openai", {"messages": [USER], "n": 17}, "n"),
}


@pytest.mark.parametrize(("dialect", "body", "field"), BAD.values(), ids=BAD)
def test_a_wrong_request_is_refused_by_the_field_that_is_wrong(dialect: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refused:
        DIALECTS[dialect].read(body)
    assert refused.value.kind == "bad_request"
    if field:
        assert refused.value.field == field


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        ("openai", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}),
        ("mistral", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}),
        ("responses", {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}}),
    ],
)
def test_a_schema_is_read_in_each_dialect_s_form(dialect: str, fields: dict[str, Any]) -> None:
    said = {"input": "x"} if dialect == "responses" else {"messages": [USER]}
    assert DIALECTS[dialect].read({**said, **fields}).schema == SCHEMA


@pytest.mark.parametrize("name", list(DIALECTS))
def test_every_refusal_has_words_in_every_dialect(name: str) -> None:
    for kind in STATUS:
        status, body = DIALECTS[name].error(Refused(kind, "because"))
        assert 400 <= status < 600
        assert "because" in json.dumps(body)

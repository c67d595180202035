"""What a client can read out of a reply of each dialect, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from magistral.serve.dialects import Sse

Calls = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Said:
    """What a client can read out of a reply, whatever its dialect."""

    thinking: str
    answer: str
    calls: Calls
    prompt: int
    completion: int
    thought: int


def of_chat(body: dict[str, Any]) -> Said:
    message = body["choices"][0]["message"]
    calls = tuple((c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or [])
    return Said(message.get("reasoning_content", ""), message["content"] or "", calls, *chat_usage(body["usage"]))


def chat_usage(usage: dict[str, Any]) -> tuple[int, int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]


def of_chat_stream(events: Sequence[Sse]) -> Said:
    chunks = [e.data for e in events if isinstance(e.data, dict)]
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    thinking = "".join(d.get("reasoning_content", "") for d in deltas)
    assert thinking == "".join(d.get("reasoning", "") for d in deltas)
    answer = "".join(d.get("content") or "" for d in deltas)
    assert events[-1].data == "[DONE]"
    return Said(thinking, answer, delta_calls(deltas), *chat_usage(chunks[-1]["usage"]))


def delta_calls(deltas: Sequence[dict[str, Any]]) -> Calls:
    return tuple((c["id"], c["function"]["name"], c["function"]["arguments"]) for d in deltas for c in d.get("tool_calls") or [])


def chunk_text(content: Any) -> tuple[str, str]:
    if isinstance(content, str):
        return "", content
    thinking = "".join(p["text"] for c in content if c["type"] == "thinking" for p in c["thinking"])
    return thinking, "".join(c["text"] for c in content if c["type"] == "text")


def of_mistral(body: dict[str, Any]) -> Said:
    message = body["choices"][0]["message"]
    calls = delta_calls([message])
    return Said(*chunk_text(message["content"]), calls, *chat_usage(body["usage"]))


def of_mistral_stream(events: Sequence[Sse]) -> Said:
    chunks = [e.data for e in events if isinstance(e.data, dict)]
    deltas = [c["choices"][0]["delta"] for c in chunks]
    parts = [chunk_text(d["content"]) for d in deltas]
    text = ("".join(t for t, _ in parts), "".join(a for _, a in parts))
    return Said(*text, delta_calls(deltas), *chat_usage(chunks[-1]["usage"]))


def of_anthropic(body: dict[str, Any]) -> Said:
    blocks = body["content"]
    thinking = "".join(b["thinking"] for b in blocks if b["type"] == "thinking")
    answer = "".join(b["text"] for b in blocks if b["type"] == "text")
    calls = tuple((b["id"], b["name"], json.dumps(b["input"])) for b in blocks if b["type"] == "tool_use")
    return Said(thinking, answer, calls, *anthropic_usage(body["usage"]))


def anthropic_usage(usage: dict[str, Any]) -> tuple[int, int, int]:
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    return prompt, usage["output_tokens"], usage["output_tokens_details"]["thinking_tokens"]


def of_anthropic_stream(events: Sequence[Sse]) -> Said:
    blocks: list[dict[str, Any]] = []
    body: dict[str, Any] = {}
    for name, data in ((e.name, e.data) for e in events):
        assert isinstance(data, dict)
        assert name == data["type"]
        if name == "content_block_start":
            assert data["index"] == len(blocks)
            blocks.append({**data["content_block"], "input": ""})
        elif name == "content_block_delta":
            block, delta = blocks[data["index"]], data["delta"]
            key = {
                "thinking_delta": "thinking",
                "text_delta": "text",
                "signature_delta": "signature",
                "input_json_delta": "partial_json",
            }
            field = key[delta["type"]]
            target = "input" if field == "partial_json" else field
            block[target] += delta[field]
        elif name == "message_delta":
            body = {"usage": data["usage"]}
    for block in blocks:
        block["input"] = json.loads(block["input"] or "{}")
    return of_anthropic({**body, "content": blocks})


def of_responses(body: dict[str, Any]) -> Said:
    items = body["output"]
    thinking = "".join(p["text"] for i in items if i["type"] == "reasoning" for p in i["content"])
    answer = "".join(p["text"] for i in items if i["type"] == "message" for p in i["content"])
    calls = tuple((i["call_id"], i["name"], i["arguments"]) for i in items if i["type"] == "function_call")
    usage = body["usage"]
    reasoning = usage["output_tokens_details"]["reasoning_tokens"]
    return Said(thinking, answer, calls, usage["input_tokens"], usage["output_tokens"], reasoning)


def of_responses_stream(events: Sequence[Sse]) -> Said:
    datas = [e.data for e in events if isinstance(e.data, dict)]
    said = of_responses(datas[-1]["response"])
    for kind, text in (("response.reasoning_text.delta", said.thinking), ("response.output_text.delta", said.answer)):
        assert "".join(d["delta"] for d in datas if d["type"] == kind) == text
    done = [d["item"] for d in datas if d["type"] == "response.output_item.done"]
    assert done == datas[-1]["response"]["output"]
    return said


READERS: dict[str, tuple[Callable[[dict[str, Any]], Said], Callable[[Sequence[Sse]], Said]]] = {
    "openai": (of_chat, of_chat_stream),
    "mistral": (of_mistral, of_mistral_stream),
    "anthropic": (of_anthropic, of_anthropic_stream),
    "responses": (of_responses, of_responses_stream),
}

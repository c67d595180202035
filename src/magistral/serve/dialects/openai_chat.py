"""OpenAI's chat completions, with the fields that others added: `reasoning_content` and `reasoning` (equal), OpenRouter's
`reasoning` request and `reasoning_details`. `content` is always a string: clients of this dialect break on lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magistral.serve.dialects.base import Json, Renderer, Reply, Sse, extras, total
from magistral.serve.dialects.chat_fields import ChatFields, ReasoningFields, chat_arguments
from magistral.serve.dialects.fields import check, read, seed_of
from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Call, End, Ended, Event, Failed, Note, Piece, Token, ToolCall, Usage, Whole

FINISH = {
    End.STOP: "stop",
    End.STOP_STRING: "stop",
    End.LENGTH: "length",
    End.LOOP: "length",
    End.TOOLS: "tool_calls",
    End.CANCELLED: "stop",
}


class OpenAIChat:
    name = "openai"

    def read(self, body: Json) -> Ask:
        fields = read(ChatFields, body)
        max_tokens = fields.max_completion_tokens or fields.max_tokens
        reasoning = fields.reasoning or ReasoningFields()
        effort = "none" if reasoning.enabled is False else reasoning.effort or fields.reasoning_effort
        usage = bool(fields.stream_options and fields.stream_options.include_usage)
        shape = {
            "exclude": reasoning.exclude or not fields.include_reasoning,
            "details": fields.reasoning is not None,
        }
        ask = Ask(
            **fields.common(budget=reasoning.max_tokens, effort=effort),
            **chat_arguments(fields), max_tokens=max_tokens, seed=seed_of(fields.seed), usage_in_stream=usage, shape=shape,
        )  # fmt: skip
        return check(ask)

    def whole(self, reply: Reply, wholes: Sequence[Whole]) -> Json:
        return completion(reply, wholes, [_choice(reply, whole) for whole in wholes], id=f"chatcmpl-{reply.id}")

    def stream(self, reply: Reply) -> Renderer:
        return _Stream(reply)

    def error(self, refused: Refused) -> tuple[int, Json]:
        return openai_error(refused)


def completion(reply: Reply, wholes: Sequence[Whole], choices: list[Json], *, id: str) -> Json:
    """A whole reply, as OpenAI's and Mistral's chat have it in common; only its choices differ."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": choices,
        "usage": usage_of(total(wholes)),
        **extras([n for w in wholes for n in w.notes], [w.ended for w in wholes if w.ended]),
    }


def usage_of(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {
            "reasoning_tokens": usage.thinking,
            "accepted_prediction_tokens": usage.accepted,
            "rejected_prediction_tokens": usage.drafted - usage.accepted,
        },
    }


def logprobs_of(tokens: Sequence[Token]) -> Json:
    content = [{**_likely(t.text, t.logprob), "top_logprobs": [_likely(*top) for top in t.top]} for t in tokens]
    return {"content": content, "refusal": None}


def _likely(text: str, logprob: float) -> Json:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def call_fields(call: Call) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _thought(reply: Reply, text: str) -> Json:
    """Both names, equal; nothing where the request excludes it."""
    if not text or reply.ask.shape.get("exclude"):
        return {}
    fields: Json = {"reasoning_content": text, "reasoning": text}
    if reply.ask.shape.get("details"):
        fields["reasoning_details"] = [{"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}]
    return fields


def _choice(reply: Reply, whole: Whole) -> Json:
    assert whole.ended is not None
    message: Json = {"role": "assistant", "content": whole.answer, "refusal": None, **_thought(reply, whole.thinking)}
    if whole.calls:
        message |= {"tool_calls": [call_fields(c) for c in whole.calls], "content": whole.answer or None}
    return {
        "index": whole.index,
        "message": message,
        "logprobs": logprobs_of(whole.tokens) if reply.ask.logprobs else None,
        "finish_reason": FINISH[whole.ended.end],
    }


class _Stream:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.begun = set[int]()
        self.n_calls = dict[int, int]()
        self.notes = list[Note]()
        self.ended = list[Ended]()

    def feed(self, event: Event) -> list[Sse]:
        match event:
            case Failed():
                return [Sse(openai_error(Refused("broken", event.message))[1])]
            case Note():
                self.notes.append(event)
                return []
            case Piece(phase="thinking"):
                thought = _thought(self.reply, event.text)
                return self._delta(event.index, thought) if thought else []
            case Piece():
                logprobs = logprobs_of(event.tokens) if self.reply.ask.logprobs else None
                return self._delta(event.index, {"content": event.text}, logprobs=logprobs)
            case ToolCall():
                at = self.n_calls.get(event.index, 0)
                self.n_calls[event.index] = at + 1
                return self._delta(event.index, {"tool_calls": [{"index": at, **call_fields(event.call)}]})
            case Ended():
                return self._end(event)
            case _:
                return self._delta(event.index, {})

    def _delta(self, index: int, delta: Json, *, finish: str | None = None, logprobs: Json | None = None) -> list[Sse]:
        if index not in self.begun:
            self.begun.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return [self._chunk([choice])]

    def _chunk(self, choices: list[Json], **more: Any) -> Sse:
        reply = self.reply
        head = {"id": f"chatcmpl-{reply.id}", "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
        return Sse({**head, "choices": choices, **more})

    def _end(self, event: Ended) -> list[Sse]:
        self.ended.append(event)
        out = self._delta(event.index, {}, finish=FINISH[event.end])
        if len(self.ended) < self.reply.ask.n:
            return out
        last = extras(self.notes, self.ended)
        if self.reply.ask.usage_in_stream:
            usage = self.ended[0].usage
            for other in self.ended[1:]:
                usage = usage + other.usage
            out.append(self._chunk([], usage=usage_of(usage), **last))
        elif last:
            out[-1] = Sse({**out[-1].data, **last})  # type: ignore[dict-item]
        return [*out, Sse("[DONE]")]

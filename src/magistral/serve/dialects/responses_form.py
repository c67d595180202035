"""How a response of OpenAI's responses is written: its items whole, and the events that build them in a stream."""

from __future__ import annotations

from typing import Any

from magistral.serve.dialects.base import Json, Reply, Sse, extras
from magistral.serve.events import Call, End, Ended, Event, Failed, Piece, Started, ToolCall, Usage, Whole


def reasoning_item(id: str, text: str, status: str = "completed") -> Json:
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"type": "reasoning", "id": id, "summary": [], "content": content, "encrypted_content": None, "status": status}


def message_item(id: str, text: str | None, status: str = "completed") -> Json:
    content = [] if text is None else [text_part(text)]
    return {"type": "message", "id": id, "role": "assistant", "content": content, "status": status}


def text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(id: str, call: Call, status: str = "completed") -> Json:
    return {
        "type": "function_call",
        "id": id,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def usage_of(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.thinking},
        "total_tokens": usage.prompt + usage.completion,
    }


def item_id(reply: Reply, kind: str, at: int) -> str:
    return f"{kind}_{reply.id}{at}"


def items_of(reply: Reply, whole: Whole) -> list[Json]:
    items: list[Json] = []
    if whole.thinking:
        items.append(reasoning_item(item_id(reply, "rs", len(items)), whole.thinking))
    if whole.answer:
        items.append(message_item(item_id(reply, "msg", len(items)), whole.answer))
    for call in whole.calls:
        items.append(call_item(item_id(reply, "fc", len(items)), call))
    return items


def head(reply: Reply, status: str) -> Json:
    ask = reply.ask
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": ask.shape.get("instructions"),
        "max_output_tokens": ask.max_tokens,
        "metadata": {},
        "model": reply.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": ask.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "required" if ask.tools_required else "auto",
        "tools": [
            {"type": "function", "name": t.name, "description": t.description, "parameters": t.parameters, "strict": False}
            for t in ask.tools
        ],
        "top_p": ask.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": None,
    }


def response(reply: Reply, whole: Whole, usage: Usage) -> Json:
    """Incomplete where tokens ran out; `reason` is OpenAI's word, `magistral.incomplete` says whether it was in the thinking."""
    assert whole.ended is not None
    complete = whole.ended.end not in (End.LENGTH, End.LOOP)
    return {
        **head(reply, "completed" if complete else "incomplete"),
        "incomplete_details": None if complete else {"reason": "max_output_tokens"},
        "output": items_of(reply, whole),
        "usage": usage_of(usage),
        **extras(whole.notes, [whole.ended]),
    }


class Stream:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.whole = Whole(index=0)
        self.n_sent = self.n_items = 0
        self.kind = ""
        """Of the open item: rs or msg; empty: none."""

    def feed(self, event: Event) -> list[Sse]:
        self.whole.add(event)
        match event:
            case Started():
                begun = head(self.reply, "in_progress")
                return [self._sse("response.created", response=begun), self._sse("response.in_progress", response=begun)]
            case Failed():
                failed = {**head(self.reply, "failed"), "error": {"code": "server_error", "message": event.message}}
                return [self._sse("response.failed", response=failed)]
            case Piece():
                return self._piece(event)
            case ToolCall():
                return self._call(event.call)
            case Ended():
                return self._end(event)
            case _:
                return []

    def _sse(self, name: str, /, **data: Any) -> Sse:
        self.n_sent += 1
        return Sse({"type": name, "sequence_number": self.n_sent - 1, **data}, name)

    def _at(self, **more: Any) -> Json:
        at = self.n_items - 1
        return {"item_id": item_id(self.reply, self.kind, at), "output_index": at, "content_index": 0, **more}

    def _piece(self, event: Piece) -> list[Sse]:
        kind = "rs" if event.phase == "thinking" else "msg"
        out = [] if self.kind == kind else [*self._close(), *self._open(kind)]
        if kind == "rs":
            return [*out, self._sse("response.reasoning_text.delta", **self._at(delta=event.text))]
        return [*out, self._sse("response.output_text.delta", **self._at(delta=event.text, logprobs=[]))]

    def _open(self, kind: str) -> list[Sse]:
        self.kind, at = kind, self.n_items
        self.n_items += 1
        name = item_id(self.reply, kind, at)
        item = reasoning_item(name, "", "in_progress") if kind == "rs" else message_item(name, None, "in_progress")
        part: Json = {"type": "reasoning_text", "text": ""} if kind == "rs" else text_part("")
        return [
            self._sse("response.output_item.added", output_index=at, item=item),
            self._sse("response.content_part.added", **self._at(part=part)),
        ]

    def _close(self) -> list[Sse]:
        if not self.kind:
            return []
        at, name = self.n_items - 1, item_id(self.reply, self.kind, self.n_items - 1)
        if self.kind == "rs":
            text = self.whole.thinking
            done = self._sse("response.reasoning_text.done", **self._at(text=text))
            part, item = {"type": "reasoning_text", "text": text}, reasoning_item(name, text)
        else:
            text = self.whole.answer
            done = self._sse("response.output_text.done", **self._at(text=text, logprobs=[]))
            part, item = text_part(text), message_item(name, text)
        ended = self._sse("response.content_part.done", **self._at(part=part))
        self.kind = ""
        return [done, ended, self._sse("response.output_item.done", output_index=at, item=item)]

    def _call(self, call: Call) -> list[Sse]:
        closed, at = self._close(), self.n_items
        self.n_items += 1
        name = item_id(self.reply, "fc", at)
        empty = call_item(name, Call(id=call.id, name=call.name, arguments=""), "in_progress")
        where = {"item_id": name, "output_index": at}
        return [
            *closed,
            self._sse("response.output_item.added", output_index=at, item=empty),
            self._sse("response.function_call_arguments.delta", **where, delta=call.arguments),
            self._sse("response.function_call_arguments.done", **where, name=call.name, arguments=call.arguments),
            self._sse("response.output_item.done", output_index=at, item=call_item(name, call)),
        ]

    def _end(self, event: Ended) -> list[Sse]:
        closed = self._close()
        whole = response(self.reply, self.whole, event.usage)
        return [*closed, self._sse(f"response.{whole['status']}", response=whole)]

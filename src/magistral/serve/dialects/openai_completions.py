"""OpenAI's completions: a plain text or tokens to go on from; no template, no phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from magistral.serve.dialects.base import Json, Renderer, Reply, Sse, extras, total
from magistral.serve.dialects.chat_fields import StreamOptions
from magistral.serve.dialects.fields import MAX_N, MAX_TOP, Fields, read, refuse_unless, seed_of, stops_of
from magistral.serve.dialects.openai_chat import FINISH, usage_of
from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Ended, Event, Failed, Note, Piece, Token, Whole

DEFAULT_MAX = 16
"""As OpenAI's."""


class CompletionFields(Fields):
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(default=DEFAULT_MAX, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int = Field(default=1, ge=1, le=MAX_N)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None


class OpenAICompletions:
    name = "completions"

    def read(self, body: Json) -> Ask:
        fields = read(CompletionFields, body)
        names = ("echo", "suffix", "frequency_penalty", "presence_penalty", "logit_bias")
        refuse_unless((False, "", 0, {}), {name: getattr(fields, name) for name in names})
        refuse_unless((1, fields.n), {"best_of": fields.best_of})
        if fields.vote:
            raise Refused("bad_request", "vote goes with a conversation", field="vote")
        return Ask(
            raw_prompt=_prompt(fields.prompt), **{**fields.common(), "detect_loops": False},
            max_tokens=fields.max_tokens, stop=stops_of(fields.stop), seed=seed_of(fields.seed), n=fields.n,
            logprobs=fields.logprobs is not None, n_top=fields.logprobs or 0,
            top_k=max(0, fields.top_k or 0), min_p=fields.min_p or 0.0,
            usage_in_stream=bool(fields.stream_options and fields.stream_options.include_usage),
        )  # fmt: skip

    def whole(self, reply: Reply, wholes: Sequence[Whole]) -> Json:
        choices = []
        for whole in wholes:
            assert whole.ended is not None
            logprobs = _logprobs(whole.tokens) if reply.ask.logprobs else None
            choices.append(_choice(whole.index, whole.answer, FINISH[whole.ended.end], logprobs))
        more = extras([n for w in wholes for n in w.notes], [])
        return {**_head(reply), "choices": choices, "usage": usage_of(total(wholes)), **more}

    def stream(self, reply: Reply) -> Renderer:
        return _Stream(reply)

    def error(self, refused: Refused) -> tuple[int, Json]:
        return openai_error(refused)


def _prompt(prompt: Any) -> str | tuple[int, ...]:
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], int):
        return tuple(prompt)
    if len(prompt) != 1:
        raise Refused("bad_request", f"{len(prompt)} prompts: one a request is what is taken here", field="prompt")
    return prompt[0] if isinstance(prompt[0], str) else tuple(prompt[0])


def _head(reply: Reply) -> Json:
    return {"id": f"cmpl-{reply.id}", "object": "text_completion", "created": reply.created, "model": reply.model}


def _choice(index: int, text: str, finish: str | None, logprobs: Json | None) -> Json:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(tokens: Sequence[Token]) -> Json:
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token.text)
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [dict(t.top) for t in tokens] if any(t.top for t in tokens) else None,
        "text_offset": offsets,
    }


class _Stream:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.ended = list[Ended]()
        self.notes = list[Note]()

    def feed(self, event: Event) -> list[Sse]:
        match event:
            case Failed():
                return [Sse(openai_error(Refused("broken", event.message))[1])]
            case Note():
                self.notes.append(event)
                return []
            case Piece():
                logprobs = _logprobs(event.tokens) if self.reply.ask.logprobs else None
                return [self._chunk([_choice(event.index, event.text, None, logprobs)])]
            case Ended():
                return self._end(event)
            case _:
                return []

    def _chunk(self, choices: list[Json], **more: Any) -> Sse:
        return Sse({**_head(self.reply), "choices": choices, **more})

    def _end(self, event: Ended) -> list[Sse]:
        self.ended.append(event)
        choice = _choice(event.index, "", FINISH[event.end], None)
        if len(self.ended) < self.reply.ask.n:
            return [self._chunk([choice])]
        out = [self._chunk([choice], **extras(self.notes, []))]
        if self.reply.ask.usage_in_stream:
            usage = self.ended[0].usage
            for other in self.ended[1:]:
                usage = usage + other.usage
            out.append(self._chunk([], usage=usage_of(usage)))
        return [*out, Sse("[DONE]")]

"""Reading requests: what the dialects have in common. Model fields with a docstring are ours; the others are the dialects'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from magistral.serve.errors import Refused
from magistral.serve.events import ANY_OBJECT, Ask, Start, Turn, Vote
from magistral.text.trace import THINK_TEXT, THINK_TOKENS, parse

MAX_N = 16
MAX_TOP = 20
"""Log-probabilities at one place, as OpenAI has it."""
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Loose(BaseModel):
    """Fields that are not known have no effect; those that are null are absent."""

    model_config = ConfigDict(strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class Part(Loose):
    type: str
    text: str | None = None
    thinking: str | list[Part] | None = None
    closed: bool | None = None
    signature: str | None = None
    content: Any = None


class VoteFields(Loose):
    model_config = ConfigDict(strict=True, extra="forbid")
    k: int = Field(ge=2, le=MAX_N)
    early_stop: bool = True


class Fields(Loose):
    """What every dialect reads. Unknown fields have no effect and are named in the header `x-magistral-ignored`."""

    model_config = ConfigDict(strict=True, extra="allow", use_attribute_docstrings=True)
    model: str = Field(default="", max_length=256)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stream: bool = False
    thinking_budget: int | None = Field(default=None, ge=0)
    """Tokens of thinking, at most; then a closing phrase is put in. 0: no thinking."""
    answer_reserve: int | None = Field(default=None, ge=0)
    """Tokens of max_tokens that are kept for the answer."""
    detect_loops: bool = True
    """Close a thinking, and end an answer, that repeats itself."""
    flash: bool = False
    """Answer at once, without thinking, ahead of others."""
    vote: VoteFields | None = None
    """Several completions, and the answer that most agree on."""
    trace_checks: bool = False
    """Verify the steps of arithmetic found in the thinking."""
    reattach: bool = False
    """Put thinking back that was left out of earlier answers, where the server remembers it."""

    def common(self, *, start: Start = "free", budget: int | None = None, effort: str | None = None) -> dict[str, Any]:
        """Arguments of Ask. What the dialect's own fields say; a budget goes before an effort, and ours before all."""
        budget = self.thinking_budget if self.thinking_budget is not None else budget
        effort = effort if budget is None and effort else ""
        return {
            "model": self.model,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stream": self.stream,
            "start": "answer" if self.flash or budget == 0 or effort == "none" else start,
            "thinking_budget": budget or None,
            "effort": effort,
            "answer_reserve": self.answer_reserve,
            "detect_loops": self.detect_loops,
            "flash": self.flash,
            "vote": Vote(k=self.vote.k, early_stop=self.vote.early_stop) if self.vote else None,
            "trace_checks": self.trace_checks,
            "reattach": self.reattach,
            "ignored": tuple(sorted(str(name)[:64] for name in self.model_extra or ())),
        }


F = TypeVar("F", bound=BaseModel)


def read(kind: type[F], body: dict[str, Any]) -> F:
    """Raises Refused naming the first field that is wrong."""
    try:
        return kind.model_validate(body)
    except ValidationError as e:
        error = e.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, error["loc"]))
        raise Refused("bad_request", f"{place}: {error['msg']}", field=place) from None


def refuse_unless(allowed: Any, values: dict[str, Any]) -> None:
    """What would change the text and cannot be done here is refused, never dropped. `allowed`: values that ask for nothing."""
    for name, value in values.items():
        if value is not None and value not in allowed:
            raise Refused("bad_request", f"{name}={value!r} is not supported by this server: leave it out", field=name)


def schema_of(form: dict[str, Any] | None, where: str) -> dict[str, Any] | None:
    """Of OpenAI's and Mistral's `response_format`, or of OpenAI's `text.format`, which has the schema one level higher."""
    match form or {"type": "text"}:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return ANY_OBJECT
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}} | {"type": "json_schema", "schema": dict(schema)}:
            return schema
    raise Refused("bad_request", f"{where}: its type is text, json_object, or json_schema with a schema", field=where)


def seed_of(seed: int | None) -> int | None:
    return None if seed is None else seed % 2**62


def stops_of(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > 16 or any(len(s) > 256 for s in stops):
        raise Refused("bad_request", "at most 16 stop strings of 256 characters each", field="stop")
    return tuple(s for s in stops if s)


def content_of(content: str | Sequence[Part | str] | None, where: str) -> tuple[str, str]:
    """Text and thinking of a message: a string, or a list of parts of any dialect."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    texts, thinkings = list[str](), list[str]()
    for i, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif part.type in ("text", "input_text", "output_text", "refusal"):
            texts.append(part.text or "")
        elif part.type in ("thinking", "reasoning_text"):
            thinkings.append(_thinking(part))
        else:
            message = f"{where}.{i}: content of type {part.type[:40]!r} is not read here; text and thinking are"
            raise Refused("bad_request", message, field=f"{where}.{i}.type")
    return "".join(texts), "".join(thinkings)


def _thinking(part: Part) -> str:
    """Mistral's wire has a list of text parts, mistral-common and Anthropic a string."""
    if isinstance(part.thinking, str):
        return part.thinking
    return "".join(p.text or "" for p in part.thinking or ()) or part.text or ""


def assistant_turn(text: str, thinking: str, **more: Any) -> Turn:
    """Thinking in tags at the start of a string is thinking too."""
    if not thinking:
        for marks in (THINK_TEXT, THINK_TOKENS):
            trace = parse(text, marks)
            if trace.well_formed:
                return Turn(role="assistant", text=trace.summary, thinking=trace.thinking, **more)
    return Turn(role="assistant", text=text, thinking=thinking.strip("\n"), **more)


def check(ask: Ask) -> Ask:
    """What must hold of a request in any dialect."""
    if not any(t.role != "system" for t in ask.turns) and ask.raw_prompt is None:
        raise Refused("bad_request", "there is no message to answer", field="messages")
    if ask.turns and ask.turns[-1].role == "assistant" and not ask.goes_on:
        raise Refused(
            "bad_request", "the last message is the assistant's: end with the user's, or mark it prefix", field="messages"
        )
    if ask.vote and (ask.n > 1 or (ask.stream and ask.tools)):
        raise Refused("bad_request", "vote goes with n = 1, and not with tools in a stream", field="vote")
    return ask

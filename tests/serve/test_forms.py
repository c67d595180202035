"""JSON that begins where the answer does, whatever a model that knows nothing would write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Event, Tool, ToolCall, Turn
from magistral.serve.forms import AnswerMask
from magistral.serve.model import Served
from magistral.serve.pieces import TextCutter, TokenCutter
from magistral.serve.service import Service
from magistral.text.tokens import byte_tokenizer
from magistral.text.trace import THINK_TEXT
from tests.serve.test_scheduler import events_of, text_of

if TYPE_CHECKING:
    from magistral.models.transformer import Transformer

SCHEMA = {"type": "object", "properties": {"ok": {"enum": ["yes", "no"]}}, "required": ["ok"], "additionalProperties": False}
QUESTION = (Turn(role="user", text="?"),)


class Only:
    """A grammar that allows one text."""

    def __init__(self, text: str) -> None:
        self.left = byte_tokenizer().encode(text)

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        found = np.zeros(byte_tokenizer().n_words, dtype=bool)
        found[self.left[:1]] = True
        return found

    def accept(self, token: int) -> None:
        assert token == self.left.pop(0)


@pytest.mark.parametrize(
    ("start", "said", "following"),
    [
        ("free", "", "<{"),
        ("free", "<th", "i"),
        ("free", "<think>\nhm</think>", "{"),
        ("thinking", "hm\n</think>\n", "{"),
        ("thinking", "hm</think>{", "}"),
        ("answer", "", "{"),
        ("free", "{", "}"),
    ],
    ids=["before all", "in the mark", "behind thinking", "a line behind it", "in the answer", "without thinking", "at once"],
)
def test_what_may_come_next(start: Any, said: str, following: str) -> None:
    tokenizer = byte_tokenizer()
    mask = AnswerMask(tokenizer, TextCutter(THINK_TEXT, start), Only("{}"), free=start == "free")
    for token in tokenizer.encode(said):
        assert mask.allowed()[token] or token == tokenizer.encode("\n")[0]
        mask.accept(token)
    assert {tokenizer.decode([int(i)]) for i in np.flatnonzero(mask.allowed())} == set(following)


def test_thinking_may_say_anything_but_the_end() -> None:
    tokenizer = byte_tokenizer()
    mask = AnswerMask(tokenizer, TokenCutter(1000, 1001, "thinking"), Only("{}"), free=False)
    assert list(np.flatnonzero(~mask.allowed())) == [tokenizer.eos]


@pytest.fixture
def served(tiny: Callable[..., Transformer]) -> Served:
    pytest.importorskip("llguidance")
    from magistral.engines.native.engine import NativeEngine

    tokenizer = byte_tokenizer()
    engine = NativeEngine(tiny(n_words=tokenizer.n_words, window=1200), tokenizer.eos, n_slots=2, window=1200)
    return Served(name="tiny", engine=engine, tokenizer=tokenizer, window=1200, n_slots=2, able=frozenset({"mask"}))


def written(served: Served, ask: Ask) -> list[Event]:
    async def main() -> list[Event]:
        service = Service([served])
        service.start()
        try:
            return await asyncio.wait_for(events_of(service.open(ask)), 60)
        finally:
            await service.stop()

    return asyncio.run(main())


@pytest.mark.parametrize("start", ["free", "thinking", "answer"])
def test_an_answer_follows_its_schema_and_the_thinking_does_not(served: Served, start: Any) -> None:
    budget = 20 if start == "thinking" else None
    events = written(served, Ask(turns=QUESTION, seed=1, start=start, schema=SCHEMA, thinking_budget=budget, max_tokens=300))
    assert json.loads(text_of(events, "answer"))["ok"] in ("yes", "no")
    assert start == "free" or bool(text_of(events, "thinking")) == (start == "thinking")


def test_the_arguments_of_a_demanded_tool_follow_its_schema(served: Served) -> None:
    tool = Tool(name="judge", description="", parameters=SCHEMA, strict=True)
    events = written(served, Ask(turns=QUESTION, seed=1, start="answer", tools=(tool,), tools_required=True, max_tokens=300))
    (call,) = [e.call for e in events if isinstance(e, ToolCall)]
    assert (call.name, json.loads(call.arguments)["ok"] in ("yes", "no")) == ("judge", True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": {"type": "nothing"}}, "schema"),
        ({"schema": SCHEMA, "prefix": "{"}, "not with tools or a prefix"),
        ({"top_k": 5}, "does not do top_k"),
    ],
    ids=["no schema", "a prefix", "an engine that cannot"],
)
def test_what_cannot_be_followed_is_refused(served: Served, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        served.options(Ask(turns=QUESTION, **changes))

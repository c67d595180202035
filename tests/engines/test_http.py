"""The http engine: what it sends, what it reads, what it asks again for, what it spends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from magistral.engines.base import EngineFailed, Request, Written
from magistral.engines.http import Budget, Endpoint, HttpEngine, endpoint_of
from magistral.engines.remote import Tries
from magistral.errors import UserError
from magistral.flow import Finish
from magistral.text.message import Message, ToolCall
from magistral.text.tokens import byte_tokenizer
from magistral.text.trace import THINK_TEXT, THINK_TOKENS, Marks, parse
from tests.engines.contract import finish
from tests.engines.fakes import FakeChat, Slowly, delta, ending, events, transport

HELLO = events(delta(content="4"), *ending(), "[DONE]")
Handler = Callable[[httpx.Request], Any]


def ask(*messages: Message, **changes: Any) -> Request:
    told = messages or (Message(role="user", content="2+2?"),)
    settings: dict[str, Any] = {"seeds": (1,), "max_tokens": 10, "key": "k", **changes}
    return Request(prompt=(), messages=told, **settings)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def make(waits: list[float]) -> Iterator[Callable[..., HttpEngine]]:
    engines: list[HttpEngine] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def new(handler: Handler, *, dialect: Any = "openai", budget: Budget | None = None, **endpoint: Any) -> HttpEngine:
        settings = {"base_url": "http://nowhere/v1", "model": "m", "dialect": dialect, **endpoint}
        tries = Tries(n=4, first_wait_s=1, longest_wait_s=60, sleep=sleep)
        engines.append(
            HttpEngine(Endpoint(**settings), byte_tokenizer(), budget=budget, tries=tries, transport=transport(handler))
        )
        return engines[-1]

    yield new
    for engine in engines:
        engine.close()


def one(engine: HttpEngine, request: Request | None = None) -> Written:
    engine.submit(request or ask())
    (written,) = finish(engine)
    return written


def streams(*bodies: bytes | int | Exception, headers: dict[str, str] | None = None) -> Handler:
    """A server that answers each request with the next of these: a stream, a status, or a lost connection."""
    left = list(bodies)

    async def handle(request: httpx.Request) -> httpx.Response:
        body = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(body, Exception):
            raise body
        if isinstance(body, int):
            return httpx.Response(body, json={"error": {"message": f"status {body}"}}, headers=headers)
        return httpx.Response(200, stream=Slowly(body))

    return handle


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_an_answer_s_thinking_stands_between_the_marks(dialect: str, make: Callable[..., HttpEngine]) -> None:
    written = one(make(FakeChat(dialect), dialect=dialect))
    assert written.text == "<think>\nseed 1\n</think>\nIt is 2+2?"
    trace = parse(written.text)
    assert (trace.thinking, trace.summary, trace.well_formed) == ("seed 1", "It is 2+2?", True)
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(written.tokens) == written.text + "<eos>"
    assert written.versions == [0] * len(written.tokens)


def test_the_marks_are_the_endpoint_s(make: Callable[..., HttpEngine]) -> None:
    assert one(make(FakeChat("mistral"), dialect="mistral", marks=THINK_TOKENS)).text.startswith("[THINK]\nseed 1\n[/THINK]\n")


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_what_is_sent_is_in_the_dialect(dialect: str, make: Callable[..., HttpEngine]) -> None:
    server = FakeChat(dialect)
    engine = make(server, dialect=dialect, extra={"prompt_mode": None})
    engine.submit(ask(seeds=(7, 8), temperature=0.7, top_p=0.95, stop=("\n\n",)))
    finish(engine)
    common = {
        "model": "m", "messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 10, "temperature": 0.7, "top_p": 0.95,
        "stop": ["\n\n"], "stream": True, "prompt_mode": None,
    }  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "openai": {"seed": 7, "stream_options": {"include_usage": True}},
        "mistral": {"random_seed": 7},
    }
    assert sorted(server.bodies, key=json.dumps)[0] == common | own[dialect]


def test_history_is_sent_as_the_dialect_writes_it(make: Callable[..., HttpEngine]) -> None:
    call = Message(role="assistant", calls=(ToolCall(name="f", arguments="{}", id="c"),))
    result = Message(role="tool", content="r", call_id="c")
    told = (
        Message(role="system", content="sys"), Message(role="user", content="a"), call, result,
        Message(role="assistant", content=(("thinking", "t"), ("text", "b"))), Message(role="user", content="c"),
    )  # fmt: skip
    sent = {}
    for dialect in ("openai", "mistral"):
        server = FakeChat(dialect)
        one(make(server, dialect=dialect), ask(*told))
        sent[dialect] = server.bodies[0]["messages"]
    assert [m["role"] for m in sent["openai"]] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert sent["openai"][2]["tool_calls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert sent["openai"][3]["tool_call_id"] == "c"
    assert sent["openai"][4]["content"] == "<think>\nt\n</think>\nb"
    assert sent["mistral"][4]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "b"},
    ]  # fmt: skip


def test_the_key_comes_from_the_environment(make: Callable[..., HttpEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(UserError, match="set the environment variable A_KEY"):
        make(FakeChat("openai"), key_env="A_KEY")
    monkeypatch.setenv("A_KEY", "s3cret")
    server = FakeChat("openai")
    one(make(server, key_env="A_KEY"))
    assert server.keys == ["Bearer s3cret"]
    one(make(server))
    assert server.keys[-1] is None


def test_a_request_in_tokens_alone_is_refused(make: Callable[..., HttpEngine]) -> None:
    with pytest.raises(UserError, match="asked in messages, not in tokens"):
        make(FakeChat("openai")).submit(Request(prompt=(1, 2), seeds=(1,), max_tokens=4))


@pytest.mark.parametrize(
    ("faults", "n_waits"),
    [
        ([503], 1),
        ([429, 500], 2),
        ([httpx.ConnectError("no route")], 1),
        ([events(delta(content="cut"))], 1),
        ([httpx.ReadTimeout("slow"), 408, 425], 3),
    ],
    ids=["overloaded", "twice", "no connection", "a stream that was cut", "three times"],
)
def test_what_may_pass_is_asked_again(
    faults: list[Any], n_waits: int, make: Callable[..., HttpEngine], waits: list[float]
) -> None:
    assert one(make(streams(*faults, HELLO))).text == "4"
    assert len(waits) == n_waits
    assert all(2**i <= wait <= 2 * 2**i for i, wait in enumerate(waits)), "each wait is about twice the last"


def test_a_server_s_own_wait_is_kept_up_to_the_longest(make: Callable[..., HttpEngine], waits: list[float]) -> None:
    one(make(streams(429, HELLO, headers={"retry-after": "7"})))
    one(make(streams(429, HELLO, headers={"retry-after": "86400"})))
    one(make(streams(503, HELLO, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})))
    assert waits[:2] == [7, 60]
    assert 1 <= waits[2] <= 2


def test_what_does_not_pass_ends_with_the_server_s_words(make: Callable[..., HttpEngine], waits: list[float]) -> None:
    engine = make(streams(503))
    engine.submit(ask(key="mine"))
    with pytest.raises(EngineFailed, match=r"request 'mine': HTTP 503: status 503 \(4 tries\)") as failed:
        finish(engine)
    assert failed.value.key == "mine"
    assert len(waits) == 3
    assert engine.idle


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_asking_again_does_not_change_is_asked_once(
    status: int, make: Callable[..., HttpEngine], waits: list[float]
) -> None:
    engine = make(streams(status))
    engine.submit(ask())
    with pytest.raises(EngineFailed, match=f"HTTP {status}: status {status}"):
        finish(engine)
    assert waits == []


@pytest.mark.parametrize(
    "body",
    [b"plain text", b'{"detail": [{"msg": "field required"}]}', b'{"object": "error", "message": "bad"}', b"[]", b""],
    ids=["no JSON", "details", "Mistral's form", "a list", "nothing"],
)
def test_any_form_of_an_error_is_one_line(body: bytes, make: Callable[..., HttpEngine]) -> None:
    engine = make(lambda request: httpx.Response(400, content=body))
    engine.submit(ask())
    with pytest.raises(EngineFailed, match="HTTP 400") as failed:
        finish(engine)
    assert "\n" not in str(failed.value)


def test_a_retired_id_is_reported_with_its_date(make: Callable[..., HttpEngine]) -> None:
    engine = make(streams(404), model="magistral-small-2506")
    engine.submit(ask())
    with pytest.raises(EngineFailed, match="magistral-small-2506 was retired on 2025-11-30: name a living id"):
        finish(engine)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (events("{"), "streams what is no chat completion"),
        (events("[]"), "streams what is no chat completion"),
        (events({"choices": [3]}), "streams what is no chat completion"),
        (events(delta(content=[{"kind": "text"}])), "streams what is no chat completion"),
        (events({"error": {"message": "out of memory"}}), "gave up: .*out of memory"),
        (events(delta(content="a"), *ending("content_filter")), "ended the answer with 'content_filter'"),
        (events(*[delta(content="x" * 1000)] * 4), "writes on past max_tokens=10"),
    ],
    ids=["cut JSON", "a list", "a choice of another form", "a chunk of another form", "an error", "a filter", "no end"],
)
def test_a_stream_gone_wrong_is_an_error_that_says_how(body: bytes, says: str, make: Callable[..., HttpEngine]) -> None:
    engine = make(streams(body))
    engine.submit(ask())
    with pytest.raises(EngineFailed, match=says):
        finish(engine)


def test_what_a_stream_may_hold_besides_is_passed_over(make: Callable[..., HttpEngine]) -> None:
    body = b": ping\n\nevent: x\n\n" + events({"choices": []}, delta(content=None), delta(content="4"), *ending("model_length"))
    written = one(make(streams(body)))
    assert (written.text, written.finish) == ("4", Finish.LENGTH)
    assert written.tokens[-1] != byte_tokenizer().eos


def test_thinking_that_was_cut_has_no_closing_mark(make: Callable[..., HttpEngine]) -> None:
    written = one(make(streams(events(delta(reasoning="so"), *ending("length")))))
    assert written.text == "<think>\nso"
    assert parse(written.text).fault == "no closing mark"


@pytest.mark.parametrize("marks", [THINK_TEXT, THINK_TOKENS])
def test_a_mark_that_the_thinking_speaks_of_does_not_end_it(marks: Marks, make: Callable[..., HttpEngine]) -> None:
    half, rest = marks.close[:3], f"{marks.close[3:]} after {marks.open}, so 4"
    body = events(delta(reasoning=f"I write {half}"), delta(reasoning=rest), delta(content="It is 4"), *ending())
    written = one(make(streams(body), marks=marks))
    trace = parse(written.text, marks)
    assert (trace.summary, trace.fault) == ("It is 4", "")
    assert trace.thinking == f"I write {marks.close[0]} {marks.close[1:]} after {marks.open[0]} {marks.open[1:]}, so 4"
    assert written.pieces[:2] == [("thinking", f"I write {half}"), ("thinking", rest)]


def test_one_request_that_fails_leaves_the_others(make: Callable[..., HttpEngine]) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        bad = "bad" in json.loads(request.content)["messages"][0]["content"]
        return httpx.Response(400, json={"error": "no"}) if bad else httpx.Response(200, stream=Slowly(HELLO))

    engine = make(handle)
    for key, text in (("a", "good"), ("b", "bad"), ("c", "good")):
        engine.submit(ask(Message(role="user", content=text), key=key, seeds=(1, 2)))
    done, failed = [], []
    while not engine.idle:
        try:
            done += engine.step()
        except EngineFailed as e:
            failed.append(e.key)
    assert failed == ["b"]
    assert sorted((w.request.key, w.index) for w in done) == [("a", 0), ("a", 1), ("c", 0), ("c", 1)]


def test_the_budget_counts_what_is_in_flight_and_then_what_it_cost(make: Callable[..., HttpEngine]) -> None:
    budget = Budget(limit=100e-6, price_in=1.0, price_out=3.0)  # 4 bytes of question and 10 tokens: 34 millionths at most

    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.1)
        return httpx.Response(200, stream=Slowly(HELLO))

    engine = make(slow, budget=budget)
    engine.submit(ask(seeds=(1, 2)))
    assert budget.reserved == pytest.approx(68e-6)
    with pytest.raises(UserError, match=r"may cost 0\.000034, and 0\.000032 of the budget of 0\.0001 is left"):
        engine.submit(ask())
    finish(engine)
    assert budget.reserved == pytest.approx(0, abs=1e-12)
    assert budget.spent == pytest.approx(2 * (5 + 3 * 7) * 1e-6)


def test_a_request_that_was_refused_costs_nothing_and_one_without_a_bill_the_most(make: Callable[..., HttpEngine]) -> None:
    budget = Budget(limit=1, price_in=1.0, price_out=3.0)
    engine = make(streams(400), budget=budget)
    engine.submit(ask())
    with pytest.raises(EngineFailed):
        finish(engine)
    assert [budget.reserved, budget.spent] == [0, 0]
    one(make(streams(events(delta(content="4"), *ending(usage=None))), budget=budget))
    assert budget.spent == pytest.approx(34e-6)


CUT = events(delta(content="so"))


@pytest.mark.parametrize(
    ("answers", "spent"),
    [
        ([CUT, CUT, CUT, HELLO], 3 * 34 + 26),
        ([httpx.ReadTimeout("slow"), HELLO], 34 + 26),
        ([503, httpx.ConnectError("no route"), 429, HELLO], 26),
        ([CUT], 4 * 34),
        ([events(delta(content="a"), *ending("content_filter"))], 34),
        ([events(delta(content="a"), "{")], 34),
        ([CUT, 400], 34),
    ],
    ids=["cut three times", "silent", "never written", "given up", "a filter", "gone wrong half-way", "cut, then refused"],
)
def test_whatever_may_be_on_the_bill_is_counted(answers: list[Any], spent: float, make: Callable[..., HttpEngine]) -> None:
    budget = Budget(limit=1, price_in=1.0, price_out=3.0)  # at most 4 + 3 * 10 each time; by the bill 5 + 3 * 7
    engine = make(streams(*answers), budget=budget)
    engine.submit(ask())
    with contextlib.suppress(EngineFailed):
        finish(engine)
    assert budget.spent == pytest.approx(spent * 1e-6)
    assert budget.reserved == pytest.approx(0, abs=1e-12)


def test_what_was_cut_is_not_asked_for_again_beyond_the_limit(make: Callable[..., HttpEngine], waits: list[float]) -> None:
    budget = Budget(limit=100e-6, price_in=1.0, price_out=3.0)
    engine = make(streams(CUT), budget=budget)
    engine.submit(ask())
    with pytest.raises(EngineFailed, match=r"may cost 0\.000034, and 0\.000032 of the budget of 0\.0001 is left"):
        finish(engine)
    assert len(waits) == 2
    assert budget.spent == pytest.approx(68e-6)


@pytest.mark.parametrize(
    ("told", "extra", "n_bytes"),
    [
        ((Message(role="user", content="é"),), {}, 2),
        (
            (Message(role="user", content="a"), Message(role="assistant", calls=(ToolCall(name="f", arguments="{}", id="c"),))),
            {},
            4,
        ),
        ((Message(role="user", content="a"),), {"tools": [{"x": "y"}]}, 1 + 23),
    ],
    ids=["bytes and not letters", "a call of a tool", "tools"],
)
def test_all_that_is_to_be_read_is_reserved(
    told: tuple[Message, ...], extra: dict[str, Any], n_bytes: int, make: Callable[..., HttpEngine]
) -> None:
    engine = make(FakeChat("openai"), budget=Budget(limit=0, price_in=1.0, price_out=0.0))
    with pytest.raises(UserError, match=f"may cost {n_bytes * 1e-6:.6f}"):
        engine.submit(ask(*told, extra=extra))


@pytest.mark.parametrize(("n_parallel", "n_sent"), [(8, 3), (1, 1)], ids=["all were sent", "one was sent, two waited"])
def test_what_is_cancelled_in_flight_counts_as_spent_and_what_was_not_sent_does_not(n_parallel: int, n_sent: int) -> None:
    budget = Budget(limit=1, price_in=1.0, price_out=3.0)
    n = [0]

    async def never(request: httpx.Request) -> httpx.Response:
        n[0] += 1
        await asyncio.sleep(60)
        raise AssertionError

    endpoint = Endpoint(base_url="http://nowhere/v1", model="m")
    engine = HttpEngine(endpoint, budget=budget, n_parallel=n_parallel, transport=transport(never))
    engine.submit(ask(seeds=(1, 2, 3)))
    while n[0] < n_sent:
        assert engine.step() == []
    engine.cancel("k")
    assert engine.idle
    engine.close()
    assert budget.reserved == pytest.approx(0, abs=1e-12)
    assert budget.spent == pytest.approx(n_sent * 34e-6)


@pytest.mark.parametrize(
    ("text", "name", "endpoint"),
    [
        ("a=http://127.0.0.1:8001/v1", "a", Endpoint(base_url="http://127.0.0.1:8001/v1", model="a")),
        ("a=https://x.org/v1#org/m", "a", Endpoint(base_url="https://x.org/v1", model="org/m", key_env="MAGISTRAL_KEY_A")),
        (
            "b=https://api.mistral.ai/v1#m", "b",
            Endpoint(base_url="https://api.mistral.ai/v1", model="m", dialect="mistral", key_env="MISTRAL_API_KEY"),
        ),
        ("b=http://h/mistral/v1", "b", Endpoint(base_url="http://h/mistral/v1", model="b", dialect="mistral")),
    ],
    ids=["of this machine", "a key of its own", "Mistral's platform", "our own server's"],
)  # fmt: skip
def test_a_name_and_an_address_are_an_endpoint(text: str, name: str, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    if endpoint.key_env.startswith("MAGISTRAL"):
        monkeypatch.setenv(endpoint.key_env, "secret")
    assert endpoint_of(text) == (name, endpoint)


def test_a_path_is_no_endpoint() -> None:
    assert endpoint_of("runs/a=b") is None

"""One request of any dialect, from its body to its reply, whole or streamed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from magistral.serve.claims import Claims
from magistral.serve.dialects import Dialect, Reply, Sse
from magistral.serve.enrich import enriched
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Ended, Event, Failed, Note, Whole
from magistral.serve.guard import Gate
from magistral.serve.metrics import Metrics
from magistral.serve.model import Served
from magistral.serve.reading import read_json
from magistral.serve.remembering import Remembered
from magistral.serve.service import Service, Ticket
from magistral.serve.sse import EventStream, client_gone
from magistral.text.tokens import LONG_TEXT

log = logging.getLogger("magistral.serve")


@dataclass(frozen=True, kw_only=True)
class Asking:
    service: Service
    gate: Gate
    metrics: Metrics
    claims: Claims
    remembered: Remembered = field(default_factory=Remembered)


async def answer(how: Asking, dialect: Dialect, request: Request) -> Response:
    try:
        owner = await how.gate.admit(request)
        ask = dialect.read(await read_json(request))
        notes = [_forged(i) for i, t in enumerate(ask.turns) if t.signature and not how.gate.knows(t.thinking, t.signature)]
        if ask.reattach:
            turns, n = how.remembered.put_back(owner, ask.turns)
            ask = replace(ask, turns=turns)
            notes.append(Note(index=0, kind="reattached", text=f"thinking of {n} earlier answers was put back"))
        how.gate.allow(owner, ask)
        served = how.service.model(ask.model)
        prompt = await laid_out(served, ask)
        n_prompt = served.n_prompt(prompt[0])
        ask = how.gate.within(owner, ask, n_prompt=n_prompt, default=min(served.max_tokens, served.room(n_prompt)))
        ticket = how.service.open(ask, owner=owner, laid_out=prompt, notes=notes, on_done=[how.metrics.done, how.gate.done])
        how.gate.opened(ticket, dialect.name)
    except RecursionError:
        return refusal(how, dialect, Refused("bad_request", "the JSON is nested too deep"))
    except Refused as e:
        return refusal(how, dialect, e)
    reply = Reply(id=ticket.id, model=ticket.served.name, created=ticket.created, ask=ask, sign=how.gate.sign)
    headers = _headers(ticket, ask)
    if ask.stream:
        how.metrics.requests.labels(dialect.name, 200).inc()
        return EventStream(_stream(how, dialect, reply, ticket), headers, closed=ticket.cancel)  # type: ignore[return-value]
    return await _whole(how, dialect, reply, request, ticket)


async def laid_out(served: Served, ask: Ask) -> tuple[list[int], list[Note]]:
    """The prompt; of a long text in a thread, so that others are answered meanwhile."""
    raw = ask.raw_prompt if isinstance(ask.raw_prompt, str) else ""
    if len(raw) + sum(len(t.text) + len(t.thinking) for t in ask.turns) > LONG_TEXT:
        return await asyncio.to_thread(served.prompt, ask)
    return served.prompt(ask)


def _forged(i: int) -> Note:
    return Note(index=0, kind="unknown_thinking", text=f"the thinking of turn {i} is not as this server wrote it, or not its own")


def refusal(how: Asking, dialect: Dialect, refused: Refused) -> Response:
    status, body = dialect.error(refused)
    how.metrics.requests.labels(dialect.name, status).inc()
    headers = {"retry-after": str(refused.retry_after_s)} if refused.retry_after_s else {}
    if refused.kind == "unauthorised":
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body, status, headers=headers)


def _headers(ticket: Ticket, ask: Ask) -> dict[str, str]:
    headers = {"x-magistral-request": ticket.id}
    ignored = [name for name in (*ask.ignored, *ticket.served.ignored(ask)) if name.isidentifier()][:32]
    return {**headers, **({"x-magistral-ignored": ", ".join(ignored)} if ignored else {})}


async def _events(how: Asking, ticket: Ticket) -> AsyncIterator[Event]:
    wholes: dict[int, Whole] = {}
    async with aclosing(ticket.events()) as written:  # type: ignore[type-var]
        async for event in enriched(ticket, written, how.claims):
            how.gate.goes_on(ticket)
            if isinstance(event, Note):
                how.metrics.note(event)
            elif isinstance(event, Failed):
                log.error("request %s failed: %s", ticket.id, event.message)
            else:
                whole = wholes.setdefault(event.index, Whole(index=event.index))
                whole.add(event)
                if isinstance(event, Ended):
                    how.remembered.keep(ticket.owner, whole.answer, whole.thinking)
            yield event


async def _stream(how: Asking, dialect: Dialect, reply: Reply, ticket: Ticket) -> AsyncIterator[list[Sse]]:
    renderer = dialect.stream(reply)
    async with aclosing(_events(how, ticket)) as events:  # type: ignore[type-var]
        async for event in events:
            if out := renderer.feed(event):
                yield out


async def _whole(how: Asking, dialect: Dialect, reply: Reply, request: Request, ticket: Ticket) -> Response:
    """All at once; a client that leaves meanwhile frees its rows."""

    async def collect() -> list[Whole]:
        wholes: dict[int, Whole] = {}
        async with aclosing(_events(how, ticket)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Failed):
                    raise Refused("bad_request" if event.status < 500 else "broken", event.message, status=event.status)
                wholes.setdefault(event.index, Whole(index=event.index)).add(event)
        return [wholes[i] for i in sorted(wholes)]

    work = asyncio.create_task(collect())
    gone = asyncio.create_task(client_gone(request.receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refused("bad_request", "the client left", status=499)
        body = dialect.whole(reply, await work)
    except Refused as e:
        return refusal(how, dialect, e)
    finally:
        for task in (work, gone):
            task.cancel()
        with suppress(asyncio.CancelledError, Refused):
            await work
        ticket.cancel()
    how.metrics.requests.labels(dialect.name, 200).inc()
    return JSONResponse(body, headers=_headers(ticket, reply.ask))

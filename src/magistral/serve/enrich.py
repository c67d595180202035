"""What is done to the events of a request between the engine and its dialect: votes, checks, and what Flash did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from magistral.serve.checks import check_trace
from magistral.serve.claims import Claims
from magistral.serve.events import Ended, Event, Note, Whole
from magistral.serve.service import Ticket
from magistral.serve.votes import voted


def enriched(ticket: Ticket, events: AsyncIterator[Event], claims: Claims) -> AsyncIterator[Event]:
    if ticket.ask.vote:
        events = voted(ticket, events, claims)
    if ticket.ask.trace_checks:
        events = _checked(ticket, events, claims)
    return _flash(ticket, events) if ticket.ask.flash else events


async def _checked(ticket: Ticket, events: AsyncIterator[Event], claims: Claims) -> AsyncIterator[Event]:
    """A note before each end."""
    wholes: dict[int, Whole] = {}
    async for event in events:
        index = getattr(event, "index", 0)
        whole = wholes.setdefault(index, Whole(index=index))
        whole.add(event)
        if isinstance(event, Ended):
            data = await asyncio.to_thread(check_trace, ticket.ask.question, whole.thinking, whole.answer, claims)
            text = f"{data['n_right']} of {len(data['steps'])} steps are right, {data['n_wrong']} wrong"
            yield Note(index=index, kind="checks", text=text, data=data)
        yield event


async def _flash(ticket: Ticket, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    async for event in events:
        if isinstance(event, Ended):
            seconds = time.monotonic() - (ticket.first_token or ticket.started)
            per_s = event.usage.completion / seconds if seconds > 0 else 0.0
            data = {
                "tokens": event.usage.completion,
                "seconds": round(seconds, 3),
                "tokens_per_s": round(per_s, 1),
                "drafted": event.usage.drafted,
                "accepted": event.usage.accepted,
            }
            guessed = f"{event.usage.accepted} of {event.usage.drafted} guessed tokens were right"
            text = f"answered at once, {per_s:.0f} tokens/s; {guessed}"
            yield Note(index=event.index, kind="flash", text=text, data=data)
        yield event

"""From an Ask to its events: the model is found, the prompt made, the terms settled, the completions queued."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Ended, Event, Failed, Note, Piece, Usage
from magistral.serve.job import Full, Job
from magistral.serve.model import Served
from magistral.serve.phases import Terms
from magistral.serve.pool import Pool

RESERVED_SHARE = 4
"""Without a wish, thinking leaves one part in so many of max_tokens to the answer (chosen)."""
RESERVE_MAX = 1024
EFFORTS = {"minimal": 0.1, "low": 0.25, "medium": 0.5}
"""Share of max_tokens that thinking may take (chosen); what is above medium has no budget."""


@dataclass(eq=False, kw_only=True)
class Ticket:
    """One accepted request: its events, to be read once, and what may be done to it while it runs."""

    id: str
    ask: Ask
    served: Served
    pool: Pool
    jobs: list[Job] = field(default_factory=list)
    owner: str = ""
    """Who may steer it: the key it was asked with."""
    started: float = field(default_factory=time.monotonic)
    created: int = field(default_factory=lambda: int(time.time()))
    first_token: float = 0.0
    usages: dict[int, Usage] = field(default_factory=dict)
    ends: dict[int, Ended] = field(default_factory=dict)
    failed: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    on_done: list[Callable[[Ticket], None]] = field(default_factory=list)
    """Called once, when every completion has ended, however it ended."""
    _queue: asyncio.Queue[list[Event]] = field(default_factory=asyncio.Queue)

    @property
    def done(self) -> bool:
        return bool(self.failed) or len(self.ends) == len(self.jobs)

    @property
    def usage(self) -> Usage:
        """Of those that have ended, and of the others until now."""
        first, *rest = (self.usages.get(job.phases.index) or job.phases.usage() for job in self.jobs)
        return sum(rest, start=first)

    @property
    def promised(self) -> Usage:
        """What it may come to."""
        return Usage(prompt=self.usage.prompt, answer=sum(job.phases.terms.max_tokens for job in self.jobs))

    def take(self, events: list[Event]) -> None:
        """From the scheduler. Ends are kept even when nobody reads any more: they are what is accounted."""
        if self.done:
            return
        for event in events:
            match event:
                case Piece() if not self.first_token:
                    self.first_token = time.monotonic()
                case Ended():
                    self.usages[event.index], self.ends[event.index] = event.usage, event
                case Failed():
                    self.failed = event.message
                case _:
                    pass
        self._queue.put_nowait(events)
        if self.done:
            for call in self.on_done:
                call(self)

    async def events(self) -> AsyncIterator[Event]:
        """Until all have ended. Whoever leaves early cancels what is left."""
        n_ended = 0
        try:
            while n_ended < len(self.jobs):
                for event in await self._queue.get():
                    yield event
                    n_ended += isinstance(event, Ended)
                    if isinstance(event, Failed):
                        return
        finally:
            self.cancel()

    def cancel(self) -> None:
        for job in self.jobs:
            if job.phases.index not in self.ends and not self.failed:
                self.pool.cancel(job)

    def answer_now(self) -> None:
        """Raises Refused where the model cannot be told what to write."""
        if not self.served.steers:
            raise Refused("bad_request", f"{self.served.name} cannot be told to answer now: its endpoint goes on with no message")
        for job in self.jobs:
            self.pool.answer_now(job)


class Service:
    def __init__(self, models: Sequence[Served], *, max_waiting: int = 64) -> None:
        assert models
        self.models = {served.name: served for served in models}
        self.pools = {served.name: Pool(served, max_waiting=max_waiting) for served in models}
        self.running: dict[str, Ticket] = {}

    @property
    def ready(self) -> bool:
        return all(pool.ready for pool in self.pools.values())

    def start(self) -> None:
        for pool in self.pools.values():
            pool.start()

    async def stop(self) -> None:
        for pool in self.pools.values():
            await pool.stop()

    def model(self, name: str) -> Served:
        if not name:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Refused("not_found", f"no model named {name!r}; served here: {', '.join(self.models)}", field="model")
        return self.models[name]

    def open(
        self,
        ask: Ask,
        *,
        owner: str = "",
        laid_out: tuple[list[int], list[Note]] | None = None,
        notes: Sequence[Note] = (),
        on_done: Sequence[Callable[[Ticket], None]] = (),
    ) -> Ticket:
        """`laid_out`: what `Served.prompt` gave, where the caller has asked it; `notes` go before the events. Raises Refused."""
        served = self.model(ask.model)
        prompt, prompt_notes = laid_out or served.prompt(ask)
        if not prompt:
            raise Refused("bad_request", "the prompt is empty", field="messages")
        terms = _terms(ask, served, served.n_prompt(prompt))
        ticket = Ticket(id=secrets.token_hex(12), ask=ask, served=served, pool=self.pools[served.name], owner=owner)
        seed = secrets.randbits(48) if ask.seed is None else ask.seed
        n, options = ask.vote.k if ask.vote else ask.n, served.options(ask)
        ticket.jobs = [
            Job(
                prompt=tuple(prompt), seed=seed + i,
                temperature=served.temperature if ask.temperature is None else ask.temperature,
                top_p=served.top_p if ask.top_p is None else ask.top_p,
                phases=served.phases(ask, terms, i), sink=ticket.take, urgent=ask.flash, options=options,
            )
            for i in range(n)
        ]  # fmt: skip
        ticket.on_done = [self._forget, *on_done]
        if notes or prompt_notes:
            ticket.take([*notes, *prompt_notes])
        try:
            ticket.pool.open(ticket.jobs)
        except Full as e:
            kind = "limited" if ticket.pool.ready else "busy"
            raise Refused(kind, str(e), retry_after_s=e.retry_after_s) from None  # type: ignore[arg-type]
        self.running[ticket.id] = ticket
        return ticket

    def _forget(self, ticket: Ticket) -> None:
        self.running.pop(ticket.id, None)


def _terms(ask: Ask, served: Served, n_prompt: int) -> Terms:
    room = served.room(n_prompt)
    if room < 1 or (ask.max_tokens or 0) > room:
        wanted = f" and max_tokens={ask.max_tokens}" if ask.max_tokens else ""
        raise Refused(
            "over_window",
            f"a prompt of {n_prompt} tokens{wanted} is over the window of {served.window}: shorten it, or lower max_tokens",
            field="max_tokens" if room >= 1 else "messages",
        )
    max_tokens = ask.max_tokens or min(served.max_tokens, room)
    plain = ask.raw_prompt is not None
    reserve = min(max_tokens // RESERVED_SHARE, RESERVE_MAX) if ask.answer_reserve is None else ask.answer_reserve
    if reserve >= max_tokens > 0 and not plain:
        raise Refused(
            "bad_request", f"answer_reserve={reserve} leaves nothing of max_tokens={max_tokens}", field="answer_reserve"
        )
    return Terms(
        max_tokens=max_tokens, n_prompt=n_prompt,
        closing=() if plain else served.closing(ask.question),
        thinking_budget=_budget(ask, max_tokens), answer_reserve=0 if plain else reserve,
        detect_loops=ask.detect_loops, stop=ask.stop, tools=bool(ask.tools), call=served.call(ask), logprobs=ask.logprobs,
        trim=not plain, at_start=not ask.goes_on,
    )  # fmt: skip


def _budget(ask: Ask, max_tokens: int) -> int | None:
    """Tokens of thinking, at most."""
    if ask.start == "answer":
        return 0
    share = EFFORTS.get(ask.effort)
    return ask.thinking_budget if share is None else max(1, round(share * max_tokens))

"""Who may ask, how much, and what each used. Keys are kept as digests; nothing here holds what was said."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import sqlite3
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request

from magistral.errors import UserError
from magistral.serve.audit import Audit
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, End, Usage
from magistral.serve.guard import Gate
from magistral.serve.prices import PRICES, cost, price_of
from magistral.serve.service import Ticket

log = logging.getLogger("magistral.serve")
PRICED_AS = "magistral-small"
"""At whose price a key's spending is counted."""


NOTE_EVERY_S = 1.0


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def digest(key: str) -> bytes:
    """Keys are 256 random bits, so a plain hash cannot be guessed back."""
    return hashlib.sha256(key.encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    dollars_per_day: float | None = None


@dataclass(kw_only=True)
class _Running:
    owner: str
    promised: Usage
    noted: float = field(default_factory=time.monotonic)
    """When its tokens were last written down (monotonic)."""


def add_key(store: sqlite3.Connection, name: str, limits: Limits) -> str:
    """The new key, which is nowhere else. Raises UserError where the name is taken."""
    if not name or len(name) > 64 or not name.isprintable():
        raise UserError(f"a key's name has 1 to 64 printable characters, not {name!r}")
    key = f"mk-{secrets.token_urlsafe(32)}"
    row = (name, digest(key), time.time(), limits.requests_per_minute, limits.tokens_per_day, limits.dollars_per_day)
    try:
        store.execute("INSERT INTO keys VALUES (?, ?, ?, NULL, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise UserError(f"there is a key named {name!r}: revoked or not, a name is used once") from None
    return key


def revoke_key(store: sqlite3.Connection, name: str) -> None:
    if not store.execute("UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL", (time.time(), name)).rowcount:
        raise UserError(f"no key named {name!r} is in use")


def has_keys(store: sqlite3.Connection) -> bool:
    return bool(store.execute("SELECT 1 FROM keys WHERE revoked IS NULL LIMIT 1").fetchone())


class Accounts(Gate):
    def __init__(self, store: sqlite3.Connection, audit: Audit, *, keys_needed: bool) -> None:
        self.store, self.audit, self.keys_needed = store, audit, keys_needed
        self._last_minute: dict[str, deque[float]] = {}
        self._running: dict[str, _Running] = {}
        self._unkept = ""
        """Why the store cannot be written; while it cannot, nothing is served."""
        audit.close_killed()

    async def admit(self, request: Request) -> str:
        given = _key_of(request)
        if not given and not self.keys_needed:
            return ""
        row = self.store.execute("SELECT name FROM keys WHERE digest = ? AND revoked IS NULL", (digest(given),)).fetchone()
        if row is not None:
            return str(row[0])
        if self.keys_needed:
            raise Refused("unauthorised", "no such key: send one as `Authorization: Bearer mk-…` or `x-api-key`")
        return ""  # clients of this machine send any key, as their libraries make them

    def owns(self, request: Request, owner: str) -> bool:
        row = self.store.execute("SELECT name FROM keys WHERE digest = ?", (digest(_key_of(request)),)).fetchone()
        return owner == (row[0] if row else "")

    def allow(self, owner: str, ask: Ask) -> None:
        if self._unkept:
            raise Refused("busy", f"accounts cannot be kept: {self._unkept}", retry_after_s=30)
        limits = self._limits(owner)
        self._require(limits, self._left(owner, limits), 1)
        if limits.requests_per_minute is not None:
            self._count_minute(owner, limits.requests_per_minute)

    def within(self, owner: str, ask: Ask, *, n_prompt: int, default: int) -> Ask:
        limits = self._limits(owner)
        each = self._left(owner, limits, n_prompt=n_prompt) / (ask.vote.k if ask.vote else ask.n)
        self._require(limits, each, ask.max_tokens or 1)
        return ask if ask.max_tokens or default <= each else replace(ask, max_tokens=int(each))

    def _limits(self, owner: str) -> Limits:
        row = self.store.execute(
            "SELECT requests_per_minute, tokens_per_day, dollars_per_day FROM keys WHERE name = ?", (owner,)
        ).fetchone()
        return Limits(requests_per_minute=row[0], tokens_per_day=row[1], dollars_per_day=row[2]) if row else Limits()

    def _left(self, owner: str, limits: Limits, *, n_prompt: int = 0) -> float:
        """Tokens that may still be written today after such a prompt; what runs counts with all that it was promised."""
        if limits.tokens_per_day is None and limits.dollars_per_day is None:
            return math.inf
        promised = (held.promised for held in self._running.values() if held.owner == owner)
        used = [self.used(owner, today(), but="running"), *promised]
        prompt, completion = n_prompt + sum(u.prompt for u in used), sum(u.completion for u in used)
        tokens = math.inf if limits.tokens_per_day is None else limits.tokens_per_day - prompt - completion
        if limits.dollars_per_day is None:
            return tokens
        price = price_of(PRICED_AS, today())
        dollars = limits.dollars_per_day - cost(Usage(prompt=prompt, answer=completion), price)
        return min(tokens, dollars * 1e6 / price.completion)

    def _require(self, limits: Limits, left: float, wanted: int) -> None:
        if left >= wanted:
            return
        day = [f"{limits.tokens_per_day} tokens"] if limits.tokens_per_day is not None else []
        day += [f"${limits.dollars_per_day:g}"] if limits.dollars_per_day is not None else []
        why = f"of the day's {' and '.join(day)} no more than {max(int(left), 0)} tokens are left, running requests counted whole"
        raise Refused("limited", why, retry_after_s=86_400 - int(time.time()) % 86_400)

    def opened(self, ticket: Ticket, dialect: str) -> None:
        self._running[ticket.id] = _Running(owner=ticket.owner, promised=ticket.promised)
        row = (ticket.id, time.time(), today(), ticket.owner, ticket.served.name, dialect, ticket.usage.prompt)
        self._write(
            "INSERT INTO requests (id, at, day, key, model, dialect, state, prompt) VALUES (?, ?, ?, ?, ?, ?, 'running', ?)", row
        )

    def goes_on(self, ticket: Ticket) -> None:
        """Every second its tokens are noted, so that a kill loses no more of them."""
        held, now = self._running.get(ticket.id), time.monotonic()
        if held and now - held.noted >= NOTE_EVERY_S:
            held.noted, usage = now, ticket.usage
            self._write("UPDATE requests SET thinking = ?, answer = ? WHERE id = ?", (usage.thinking, usage.answer, ticket.id))

    def done(self, ticket: Ticket) -> None:
        self._running.pop(ticket.id, None)
        usage = ticket.usage
        aborted = sum(e.usage.completion for e in ticket.ends.values() if e.end is End.CANCELLED)
        states = {e.end.value for e in ticket.ends.values()}
        state = "failed" if ticket.failed else states.pop() if len(states) == 1 else "done"
        found = {
            "state": state, "prompt": usage.prompt, "cached": usage.cached, "thinking": usage.thinking, "answer": usage.answer,
            "aborted": aborted, "seconds": time.monotonic() - ticket.started,
            "first_token_s": ticket.first_token - ticket.started if ticket.first_token else None,
        }  # fmt: skip
        columns = ", ".join(f"{name} = ?" for name in found)
        self._write(f"UPDATE requests SET {columns} WHERE id = ?", (*found.values(), ticket.id))
        if not self._unkept:
            self._unkept = self.audit.add(ticket)

    def sign(self, thinking: str) -> str:
        return self.audit.sign(thinking)

    def knows(self, thinking: str, signature: str) -> bool:
        return self.audit.knows(thinking, signature)

    def used(self, owner: str, day: str, *, but: str = "") -> Usage:
        """`but`: requests in this state are left out."""
        (prompt, cached, thinking, answer) = self.store.execute(
            "SELECT coalesce(sum(prompt), 0), coalesce(sum(cached), 0), coalesce(sum(thinking), 0), coalesce(sum(answer), 0)"
            " FROM requests WHERE key = ? AND day = ? AND state != ?",
            (owner, day, but),
        ).fetchone()
        return Usage(prompt=prompt, cached=cached, thinking=thinking, answer=answer)

    def report(self, owner: str) -> list[dict[str, Any]]:
        """A line a day and model, newest first, with what it would have cost."""
        rows = self.store.execute(
            "SELECT day, model, count(*), sum(prompt), sum(cached), sum(thinking), sum(answer), sum(aborted)"
            " FROM requests WHERE key = ? GROUP BY day, model ORDER BY day DESC, model LIMIT 1000",
            (owner,),
        )
        return [_report_line(row) for row in rows]

    def _count_minute(self, owner: str, limit: int) -> None:
        now, last = time.monotonic(), self._last_minute.setdefault(owner, deque())
        while last and now - last[0] >= 60:
            last.popleft()
        if len(last) >= limit:
            wait = max(1, round(60 - (now - last[0])))
            raise Refused("limited", f"over {limit} requests a minute", retry_after_s=wait)
        last.append(now)

    def _write(self, statement: str, row: tuple[Any, ...]) -> None:
        try:
            self.store.execute(statement, row)
            self._unkept = ""
        except sqlite3.Error as e:
            self._unkept = str(e)
            log.error("accounts cannot be kept: %s", e)


def _report_line(row: tuple[Any, ...]) -> dict[str, Any]:
    day, model, n, *counts = row
    tokens = dict(zip(("prompt", "cached", "thinking", "answer", "aborted"), counts, strict=True))
    usage = Usage(prompt=tokens["prompt"], thinking=tokens["thinking"], answer=tokens["answer"])
    would = {name: round(cost(usage, price_of(name, day)), 6) for name in sorted({p.model for p in PRICES})}
    return {"day": day, "model": model, "requests": n, "tokens": tokens, "would_have_cost_usd": would}


def _key_of(request: Request) -> str:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and key:
        return key.strip()
    return request.headers.get("x-api-key", "")

"""Votes: several completions of one question, one answer: that of the largest class of equal claims.

Nothing is sent before it is decided, since nobody knows whose answer it will be; as soon as no outcome of what is still being
written could change the majority, the rest is cancelled. A tie goes to the class whose first completion ended first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from magistral.serve.claims import Claims, claim_of
from magistral.serve.events import End, Ended, Event, Failed, Note, Piece, Started, ToolCall, Usage, Whole
from magistral.serve.service import Ticket


@dataclass(kw_only=True)
class Class:
    claim: str
    """Empty: no answer, which no other completion agrees with."""
    members: list[Whole] = field(default_factory=list)


class Ballot:
    def __init__(self, k: int, claims: Claims) -> None:
        self.k, self.claims = k, claims
        self.classes: list[Class] = []

    def add(self, whole: Whole) -> None:
        """Blocks while claims are compared."""
        claim = claim_of(whole.answer)
        found = next((c for c in self.classes if claim and c.claim and self.claims.same(claim, c.claim)), None)
        if found is None:
            found = Class(claim=claim)
            self.classes.append(found)
        found.members.append(whole)

    @property
    def leader(self) -> Class:
        """A class without an answer leads only where there is no other."""
        return max(self.classes, key=lambda c: (bool(c.claim), len(c.members)))

    @property
    def decided(self) -> bool:
        """The others cannot catch up even if all that is missing were theirs."""
        if not self.classes or not self.leader.claim:
            return False
        left = self.k - sum(len(c.members) for c in self.classes)
        others = [len(c.members) for c in self.classes if c is not self.leader and c.claim]
        return len(self.leader.members) > max(others, default=0) + left

    def result(self) -> dict[str, Any]:
        leader = self.leader
        n = sum(len(c.members) for c in self.classes)
        dissent = [
            {"claim": c.claim, "thinking": w.thinking, "answer": w.answer}
            for c in self.classes
            if c is not leader
            for w in c.members
        ]
        n_agree = len(leader.members)
        return {
            "k": self.k,
            "n": n,
            "n_agree": n_agree,
            "share": round(n_agree / n, 4),
            "claim": leader.claim,
            "dissent": dissent,
        }


async def voted(ticket: Ticket, events: AsyncIterator[Event], claims: Claims) -> AsyncIterator[Event]:
    """The events of the winner alone, as completion 0, with a note of the vote."""
    assert ticket.ask.vote is not None
    ballot, wholes = Ballot(ticket.ask.vote.k, claims), dict[int, Whole]()
    started = decided = False
    async for event in events:
        if isinstance(event, Failed):
            yield event
            return
        if isinstance(event, Started):
            if not started:
                yield replace(event, index=0)
            started = True
            continue
        whole = wholes.setdefault(event.index, Whole(index=event.index))
        whole.add(event)
        if isinstance(event, Ended) and event.end is not End.CANCELLED and not decided:
            await asyncio.to_thread(ballot.add, whole)
            decided = ballot.decided and ticket.ask.vote.early_stop
            if decided:
                ticket.cancel()
    for result in _result(ballot, ticket.usage):
        yield result


def _result(ballot: Ballot, usage: Usage) -> list[Event]:
    if not ballot.classes:
        return [Ended(index=0, end=End.CANCELLED, usage=usage)]
    winner = ballot.leader.members[0]
    assert winner.ended is not None
    data = ballot.result()
    out: list[Event] = []
    if winner.thinking:
        out.append(Piece(index=0, phase="thinking", text=winner.thinking))
    if winner.answer:
        out.append(Piece(index=0, phase="answer", text=winner.answer, tokens=tuple(winner.tokens)))
    out += [ToolCall(index=0, call=call) for call in winner.calls]
    out += [replace(note, index=0) for note in winner.notes]
    text = f"{data['n_agree']} of {data['n']} completions agree" + (f" on {data['claim'][:80]}" if data["claim"] else "")
    out.append(Note(index=0, kind="vote", text=text, data=data))
    return [*out, replace(winner.ended, index=0, usage=usage)]

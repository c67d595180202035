"""One completion inside the engine: what it says, what of it is in the cache, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magistral.engines.base import Written, stopped
from magistral.engines.native.draw import draw, heated, uniforms
from magistral.engines.native.guess import Guesser
from magistral.flow import Finish

Decode = Callable[[Sequence[int]], str]


class Choice(NamedTuple):
    token: int
    logprob: float
    top: list[tuple[int, float]]
    """The `n_top` likeliest, where they were asked for."""


class Row:
    def __init__(self, written: Written, *, age: int, eos: int, decode: Decode | None) -> None:
        """`written` may be begun."""
        request = self.request = written.request
        self.written = written
        self.age = age
        """Ordinal: the lower came first."""
        self.tokens = [*request.prompt, *written.tokens]
        """The prompt and what was written."""
        self.n_held = 0
        """Of `tokens`, those whose keys and values are in the cache."""
        self.n_taken: int | None = None
        """Of those, taken over from others; None: it has not started, and waits in its place."""
        self.read_by = -1
        """Version of the weights that computed the first of those; keys of several versions are not shared."""
        self.told: list[int] = []
        """What comes next instead of drawn tokens."""
        self.mask = request.mask() if request.mask else None
        self._uniforms = uniforms(request.seeds[written.index], request.max_tokens)
        self._guesser = Guesser(len(request.prompt), request.prediction) if request.draft else None
        self._ends = {eos, *request.stop_tokens}
        self._decode = decode
        if self.mask is not None:
            for token in written.tokens:
                self.mask.accept(token)
        if written.tokens:
            self._end()

    @property
    def started(self) -> bool:
        return self.n_taken is not None

    def start_anew(self) -> None:
        """What of it is in the cache no longer counts."""
        self.n_held, self.n_taken = 0, None

    @property
    def n_behind(self) -> int:
        """Tokens yet to go through the model before the next can be drawn: 1 in the usual step."""
        return len(self.tokens) - self.n_held

    @property
    def reading(self) -> bool:
        """Still at its prompt (or, after it had to make room, at what it had written)."""
        return self.n_behind > 1 or not self.n_held

    @property
    def n_ahead(self) -> int:
        """`ahead` is no longer than this."""
        return max(len(self.told), self.request.draft)

    def uniform(self, ahead: int) -> float:
        """By which the token `ahead` places on is drawn: of the place alone, whatever came before."""
        place = len(self.written.tokens) + ahead
        return self._uniforms[min(place, len(self._uniforms) - 1)]

    def ahead(self) -> list[int]:
        """Tokens that go through the model together with the last: those that were told but the last of them, or guesses."""
        left = self.request.max_tokens - len(self.written.tokens)
        if self.told:
            return self.told[: min(left, len(self.told)) - 1]
        if self._guesser is None or self.mask is not None or left < 2:
            return []
        return self._guesser.guess(self.tokens, min(self.request.draft, left - 1))

    def take(self, choice: Choice, version: int) -> bool:
        """Write the next token; returns whether it was told."""
        written, token, was_told = self.written, choice.token, bool(self.told)
        if was_told:
            self.told.pop(0)
            written.forced.append(len(written.tokens))
        self.tokens.append(token)
        written.tokens.append(token)
        written.logprobs.append(choice.logprob)
        written.versions.append(version)
        if self.request.n_top:
            written.top.append(choice.top)
        if self.mask is not None:
            self.mask.accept(token)
        self._end()
        return was_told

    def _end(self) -> None:
        """Mark it as ended if its last token ends it."""
        written = self.written
        stop, decode = self.request.stop, self._decode
        if written.tokens[-1] in self._ends or (decode is not None and stopped(written.tokens, stop, decode)):
            written.finish = Finish.STOP
        elif len(written.tokens) >= self.request.max_tokens:
            written.finish = Finish.LENGTH


def choose(places: Sequence[tuple[Row, int]], logits_BV: Tensor) -> list[Choice]:
    """What comes next at each place (a row, and how many tokens ahead): what was told, or a token drawn as its request says.

    A mask that allows nothing ends its completion."""
    if not places:
        return []
    requests = [row.request for row, _ in places]
    told = {i: row.told[j] for i, (row, j) in enumerate(places) if j < len(row.told)}
    for i, (row, _) in enumerate(places):
        if row.mask is not None and i not in told:
            allowed = row.mask.allowed().nonzero()[0]
            if len(allowed):
                kept = logits_BV[i, allowed]
                logits_BV[i] = float("-inf")
                logits_BV[i, allowed] = kept
            else:
                row.written.finish = Finish.STOP
    u_B = torch.tensor([row.uniform(j) for row, j in places])
    token_B, logprob_B, p_BV = draw(logits_BV, u_B, requests)
    tokens, logprobs = token_B.tolist(), logprob_B.tolist()
    for i, token in told.items():
        tokens[i] = token
        logprobs[i] = float(heated(logits_BV[i : i + 1], requests[i : i + 1]).log_softmax(-1)[0, token])
    return [
        Choice(t, logp, _likeliest(p_BV[i], r.n_top) if r.n_top else [])
        for i, (t, logp, r) in enumerate(zip(tokens, logprobs, requests, strict=True))
    ]


def _likeliest(p_V: Tensor, n: int) -> list[tuple[int, float]]:
    """Fewer than `n` where fewer are possible."""
    p, token = p_V.topk(min(n, len(p_V)))
    return [(t, math.log(x)) for t, x in zip(token.tolist(), p.tolist(), strict=True) if x > 0]

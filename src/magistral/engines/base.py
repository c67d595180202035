"""What every engine promises: requests in, completions out, new weights between two tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from magistral.errors import RunFailed, UserError
from magistral.flow import Finish
from magistral.text.message import Message, ToolCall

if TYPE_CHECKING:
    from torch import Tensor


class Mask(Protocol):
    """Which tokens may come next in one completion."""

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[V] True: may come next. All False: the completion is over."""

    def accept(self, token: int) -> None:
        """This token was written, drawn or forced; a forced one may be none of the allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What is already written of a completion; [T] each, as in `Written`."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A group: one prompt, a completion for each seed."""

    prompt: tuple[int, ...]
    seeds: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    """0: the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """Draw from this many of the likeliest tokens; 0: from all."""
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest."""
    stop: tuple[str, ...] = ()
    """Texts with which a completion ends; the one that it ended with is kept."""
    stop_tokens: tuple[int, ...] = ()
    """Tokens with which a completion ends, beside the model's own end token; kept like it."""
    n_top: int = 0
    """How many of the likeliest tokens to report at each place, with their log-probabilities."""
    mask: Callable[[], Mask] | None = None
    """Makes for each completion what says which tokens may come next."""
    draft: int = 0
    """At most so many tokens are guessed ahead, from what repeats, and kept where they are what would have been drawn: the
    completion is the same, up to rounding, and may be faster."""
    prediction: tuple[int, ...] = ()
    """What the completion is expected to say, as an old text to be changed: guessed from first where `draft` is over 0."""
    messages: tuple[Message, ...] = ()
    """The same prompt before it was laid out, for engines that are asked in text; `prompt` may then be empty."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further fields for an endpoint that is asked in messages, as {"tools": [...]}; None takes one out."""
    begun: tuple[Begun, ...] = ()
    """Of each seed what another engine wrote: the completion goes on from there. One that has ended is given back at once."""
    key: Hashable = None
    """The caller's own name for it, given back with each completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Tokens of one completion as the endpoint that wrote it counts them."""

    prompt: int
    completion: int
    cached: int = 0
    """Of the prompt, not computed anew."""
    thinking: int | None = None
    """Of the completion; None: it does not say."""


@dataclass(slots=True, kw_only=True)
class Written:
    """One completion, being written or done."""

    request: Request
    index: int
    """Place in `request.seeds`."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Natural log under the distribution that was drawn from (at temperature 0: at temperature 1)."""
    versions: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    """Places in `tokens` of those that were told and not drawn; their log-probability is the model's own, before any cut."""
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    """At each place the `n_top` likeliest tokens with their log-probabilities, likeliest first."""
    text: str = ""
    """Of engines that give text and not tokens: thinking between the marks, then the answer."""
    pieces: list[tuple[Literal["thinking", "summary"], str]] = field(default_factory=list)
    """The same text as it came, piece by piece."""
    calls: tuple[ToolCall, ...] = ()
    """Of engines that give calls of tools apart from the text."""
    counted: Counted | None = None
    finish: Finish | None = None
    n_cached: int = 0
    """Tokens of the prompt of which keys and values were kept from an earlier request."""
    n_drafted: int = 0
    n_accepted: int = 0
    """Tokens guessed ahead, and those of them that were right."""


def begin(request: Request) -> list[Written]:
    """A completion for each seed, with what is begun of it."""
    begun = request.begun or (Begun(),) * len(request.seeds)
    return [
        Written(request=request, index=i, tokens=list(b.tokens), logprobs=list(b.logprobs), versions=list(b.versions))
        for i, b in enumerate(begun)
    ]


def named(written: Written, key: Hashable, index: int | None) -> bool:
    """It is that completion of that request; `index` None: any of them."""
    return written.request.key == key and index in (None, written.index)


def stopped(tokens: Sequence[int], stop: Collection[str], decode: Callable[[Sequence[int]], str]) -> bool:
    """One of the texts ends in the last token, at its end or before: it has no more tokens than bytes, so the last few are
    enough to look at."""
    if not stop:
        return False
    tail = decode(tokens[-1 - max(len(text.encode()) for text in stop) :])
    return any(text in tail for text in stop)


OPTIONS = ("top_k", "min_p", "stop", "stop_tokens", "n_top", "mask", "draft", "prediction", "messages", "begun", "extra")
"""What a request may ask for beyond what every engine does."""


_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("temperature", lambda x: 0 <= x < math.inf, "0 or more"),
    ("top_p", lambda x: 0 < x <= 1, "over 0, and at most 1, which is off"),
    ("top_k", lambda x: x >= 0, "at least 1, or 0, which is off"),
    ("min_p", lambda x: 0 <= x <= 1, "from 0, which is off, to 1"),
    ("n_top", lambda x: x >= 0, "0 or more"),
    ("draft", lambda x: x >= 0, "0 or more"),
    ("seeds", lambda x: all(seed >= 0 for seed in x), "0 or more, each"),
    ("stop", lambda x: all(x), "texts that are not empty"),
)


def require(request: Request, engine: str, able: Collection[str], *, window: int | None = None) -> None:
    """Raises UserError where a request asks for what an engine, or any, cannot do: nothing is dropped without a word, and
    nothing fails in a step that is also others'.

    `able`: those of OPTIONS that the engine does; `window`: the longest prompt and completion together, in tokens."""
    for name in OPTIONS:
        value = getattr(request, name)
        if value and name not in able and not (name == "messages" and request.prompt):
            raise UserError(f"the engine {engine!r} does not do {name}: leave it out, or ask an engine that does")
    if request.max_tokens < 1 or not request.seeds or not (request.prompt or request.messages):
        raise UserError(
            f"prompt of {len(request.prompt)} tokens, {len(request.seeds)} seeds, max_tokens={request.max_tokens}: "
            "each must be at least 1"
        )
    for name, possible, words in _RANGES:
        if not possible(getattr(request, name)):
            raise UserError(f"{name}={getattr(request, name)!r}: what is possible is {words}")
    if request.begun and len(request.begun) != len(request.seeds):
        raise UserError(f"{len(request.begun)} begun completions for {len(request.seeds)} seeds: give one for each, or none")
    if window is not None and len(request.prompt) + request.max_tokens > window:
        raise UserError(
            f"a prompt of {len(request.prompt)} tokens and max_tokens={request.max_tokens} are over the window of {window}: "
            "shorten the prompt or lower max_tokens"
        )


def nothing_to_force(key: Hashable, index: int) -> UserError:
    return UserError(f"nothing to force: completion {index} of request {key!r} is neither waiting nor being written")


class EngineFailed(RunFailed):
    """A request that an engine gave up on; the engine has forgotten it and goes on with the others."""

    def __init__(self, message: str, key: Hashable = None) -> None:
        super().__init__(message, key)
        self.key = key

    def __str__(self) -> str:
        return str(self.args[0])


class BudgetSpent(UserError):
    """A request that might cost more than is left of what may be spent."""


class Writer(Protocol):
    """The part of an engine that suffices for who asks and waits."""

    def submit(self, request: Request) -> None:
        """Queue it; raises UserError if it can never fit."""

    def step(self) -> list[Written]:
        """Write one token of everything that is in; returns what finished."""

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being written."""


class Engine(Writer, Protocol):
    version: int
    """Of the weights that write the next token."""

    def cancel(self, key: Hashable) -> None:
        """Forget a request, waiting or half written, at once."""

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """New weights (all, or those that changed) from the next token on; nothing written is lost."""


class Steerable(Engine, Protocol):
    """An engine whose completions can be told apart and told what to say."""

    def cancel(self, key: Hashable, index: int | None = None) -> None:
        """Forget a request, or one completion of it, at once."""

    def force(self, key: Hashable, index: int, tokens: Sequence[int]) -> None:
        """These come next in that completion, instead of drawn ones; what would be drawn at a later place stays as it was.

        Raises UserError where nothing of that name waits or is being written, or a token is none of the model's."""

    def partial(self) -> list[Written]:
        """What is being written now."""

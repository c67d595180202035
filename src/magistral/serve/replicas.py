"""An engine in a process of its own, as an actor of Ray on this machine or another; the door asks it as any engine.

Each step is one call there and back: what was asked since the last goes with it, what each completion gained comes back. Why
the engines are replicated and not the server: docs/decisions/0010.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from magistral.engines.base import EngineFailed, Request, Written, begin
from magistral.errors import MagistralError, RunFailed, UserError
from magistral.serve.forms import Form
from magistral.serve.steering import Facts, ServingEngine, Steerable

Make = Callable[[], tuple[ServingEngine, Facts]]
"""Called in the actor."""
LIMIT_S = 300.0
"""For one step (chosen: a long prompt on a slow machine takes minutes)."""
START_S = 900.0
"""To have a place in the cluster, and read the model (chosen)."""
COUNTS = ("n_cached", "n_drafted", "n_accepted", "finish")
GROWING = ("tokens", "logprobs", "versions", "forced", "top")


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What became of one completion since it was last told of."""

    key: Hashable
    gained: dict[str, list[Any]]
    """The new part of each of GROWING."""
    counts: dict[str, Any]
    """COUNTS, as they are now."""


class Body:
    """What lives in the actor."""

    def __init__(self) -> None:
        self._told: dict[Hashable, dict[str, int]] = {}

    def begin(self, make: Make) -> tuple[Facts, bool]:
        """What is known of the model, and whether the engine can be told what to write. Raises what `make` raises: Ray would
        wrap it, were it raised at the actor's birth."""
        self.engine, self.facts = make()
        return self.facts, isinstance(self.engine, Steerable)

    def turn(self, commands: Sequence[tuple[str, tuple[Any, ...]]]) -> tuple[list[News], list[tuple[Hashable, str]]]:
        """Do what was asked, and a step. What the engine does not take comes back by key, with its words."""
        refused = []
        for name, arguments in commands:
            try:
                getattr(self, name)(*arguments)
            except UserError as e:
                refused.append((arguments[0].key if name == "submit" else arguments[0], str(e)))
        done = self.engine.step()
        news = [self._news(written) for written in [*done, *self.engine.partial()]]
        for written in done:
            self._told.pop(written.request.key, None)
        return news, refused

    def submit(self, request: Request) -> None:
        if isinstance(request.mask, Form):
            request = replace(request, mask=replace(request.mask, tokenizer=self.facts.tokenizer))
        self.engine.submit(request)
        n = len(request.begun[0].tokens) if request.begun else 0
        self._told[request.key] = {"tokens": n, "logprobs": n, "versions": n}

    def cancel(self, key: Hashable) -> None:
        self._told.pop(key, None)
        self.engine.cancel(key)

    def force(self, key: Hashable, index: int, tokens: Sequence[int]) -> None:
        assert isinstance(self.engine, Steerable)
        self.engine.force(key, index, tokens)

    def _news(self, written: Written) -> News:
        told = self._told.setdefault(written.request.key, {})
        gained = {name: getattr(written, name)[told.get(name, 0) :] for name in GROWING}
        told.update({name: len(getattr(written, name)) for name in GROWING})
        return News(key=written.request.key, gained=gained, counts={name: getattr(written, name) for name in COUNTS})


class Replica:
    """The door's side. Raises RunFailed where the actor died or is silent; `revive` begins another in its place."""

    version = 0

    def __init__(self, actor: Any, start: Callable[[], tuple[Any, Any]]) -> None:
        """`start` begins another actor of the same kind."""
        self._actor, self._start = actor, start
        self._commands: list[tuple[str, tuple[Any, ...]]] = []
        self._rows: dict[Hashable, Written] = {}
        self._refused: list[tuple[Hashable, str]] = []

    @property
    def idle(self) -> bool:
        return not self._rows and not self._refused

    def submit(self, request: Request) -> None:
        self._rows[request.key] = begin(request)[0]
        mask = replace(request.mask, tokenizer=None) if isinstance(request.mask, Form) else request.mask
        self._commands.append(("submit", (replace(request, mask=mask),)))

    def cancel(self, key: Hashable) -> None:
        self._rows.pop(key, None)
        self._commands.append(("cancel", (key,)))

    def partial(self) -> list[Written]:
        return list(self._rows.values())

    def step(self) -> list[Written]:
        """Raises EngineFailed, once for each, for what the engine does not take."""
        if not self._refused:
            commands, self._commands = self._commands, []
            news, self._refused = _answer(self._actor.turn.remote(commands), LIMIT_S)
            for each in news:
                self._take(each)
        if self._refused:
            key, why = self._refused.pop()
            self._rows.pop(key, None)
            raise EngineFailed(why, key) from UserError(why)
        done = [written for written in self._rows.values() if written.finish is not None]
        for written in done:
            del self._rows[written.request.key]
        return done

    def revive(self) -> None:
        self.close()
        self._commands, self._rows, self._refused = [], {}, []
        self._actor, begun = self._start()
        _answer(begun, START_S)

    def close(self) -> None:
        import ray

        ray.kill(self._actor)

    def _take(self, news: News) -> None:
        written = self._rows.get(news.key)
        if written is None:  # cancelled meanwhile
            return
        for name, part in news.gained.items():
            getattr(written, name).extend(part)
        for name, count in news.counts.items():
            setattr(written, name, count)


class SteeredReplica(Replica):
    """Of an engine that can be told what to write next."""

    def force(self, key: Hashable, index: int, tokens: Sequence[int]) -> None:
        self._commands.append(("force", (key, index, tuple(tokens))))


def hire(make: Make, n: int, **options: Any) -> tuple[list[Replica], Facts]:
    """`n` of them, which start at once, and what is known of their model. `options`: of an actor, as num_cpus, num_gpus.

    Raises what `make` raises, or RunFailed."""
    import ray

    def start() -> tuple[Any, Any]:
        actor: Any = ray.remote(**options)(Body).remote()
        return actor, actor.begin.remote(make)

    started = [start() for _ in range(n)]
    (facts, steered), *_ = [_answer(begun, START_S) for _, begun in started]
    kind = SteeredReplica if steered else Replica
    return [kind(actor, start) for actor, _ in started], facts


def _answer(reference: Any, limit_s: float) -> Any:
    """Raises what the engine has words for, else RunFailed."""
    import ray
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        return ray.get(reference, timeout=limit_s)
    except RayTaskError as e:
        cause: Exception = e.cause
        raise (cause if isinstance(cause, MagistralError) else RunFailed(f"a replica broke: {cause!r}")) from None
    except RayError as e:
        what = "died" if isinstance(e, RayActorError) else "is silent"
        raise RunFailed(f"a replica {what}: {str(e).splitlines()[0]}") from None

"""All verifiers behind one door, for threads, for asyncio, and (pickled) for a Ray actor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from magistral.errors import UserError, VerifierFailed
from magistral.flow import Outcome, Problem, Trace, Verdict
from magistral.verifiers import VERIFIERS, Verifier
from magistral.verifiers.pool import Pool


@contextmanager
def checking(problem: str) -> Iterator[None]:
    """A verifier that breaks says nothing of the answer: whatever it raises is VerifierFailed, with the problem's name if any."""
    where = f"problem {problem}: " if problem else ""
    try:
        yield
    except UserError:
        raise
    except VerifierFailed as e:
        raise VerifierFailed(f"{where}{e}") from e
    except Exception as e:  # what models write is hostile, and no verifier of ours is perfect
        raise VerifierFailed(f"{where}{type(e).__name__}: {e}") from e


class Judges:
    """A problem names its verifier by `kind`; it is made when it is first asked for. Use it as a context manager.

    Example: with Judges(n_workers=2) as judges: verdict = judges.verify(trace, problem)
    In asyncio: verdict = await judges.verify_soon(trace, problem)
    In Ray: judge = ray.remote(Judges).remote(n_workers=2), then await judge.verify_soon.remote(trace, problem); an actor has
    processes of its own, which end with it."""

    def __init__(self, *, n_workers: int = 1, deadline_s: float = 5.0, require_isolation: bool = False) -> None:
        self.pool = Pool(deadline_s, n_workers=n_workers, require_isolation=require_isolation)
        self._threads = ThreadPoolExecutor(n_workers, "verifier")
        self._room = asyncio.Semaphore(2 * n_workers)
        self._verifiers: dict[str, Verifier] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _judges, (self.pool.n_workers, self.pool.deadline_s, self.pool.require_isolation)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self.pool.close()

    def verifier(self, kind: str) -> Verifier:
        """Raises UnknownName, with the names there are."""
        if kind not in self._verifiers:
            made = VERIFIERS[kind](self.pool)
            return self._verifiers.setdefault(kind, made)
        return self._verifiers[kind]

    def verify(self, trace: Trace, problem: Problem, *, draw: int = 0) -> Verdict:
        """Raises VerifierFailed where no judgement could be made: the completion is to be dropped and counted."""
        verifier = self.verifier(problem.kind)
        with checking(problem.id):
            verdict = verifier.verify(trace, problem, draw=draw)
            if verdict.outcome is Outcome.ERROR:
                raise VerifierFailed(verdict.reason)
        return verdict

    async def verify_soon(self, trace: Trace, problem: Problem, *, draw: int = 0) -> Verdict:
        """The same without holding up the event loop. At most 2 * n_workers are under way: whoever asks for more waits here."""
        async with self._room:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, lambda: self.verify(trace, problem, draw=draw))


def _judges(n_workers: int, deadline_s: float, require_isolation: bool) -> Judges:
    return Judges(n_workers=n_workers, deadline_s=deadline_s, require_isolation=require_isolation)

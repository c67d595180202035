"""vLLM servers, tokens in and tokens out, with new weights between two tokens. Needs the extra `vllm`.

`vllm_api` knows the servers' routes, `vllm_weights` the way of the weights. Each token's version is the label that the server
told with it, and a label that was not sent here is refused: such a server was started anew, or somebody else feeds it.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx

from magistral.engines.base import EngineFailed, Request, Written, begin, require
from magistral.engines.remote import Refused, Remote, Tries, Unanswered, words
from magistral.engines.vllm_api import VllmServer, places
from magistral.engines.vllm_weights import Sealed, Shelf
from magistral.errors import GeneratorLost, UserError
from magistral.flow import Finish

if TYPE_CHECKING:
    from torch import Tensor

PARALLEL = 1024
"""Completions asked for at once (chosen: more than a server writes at once; it queues the others)."""
ABLE = ("top_k", "min_p", "stop", "stop_tokens", "n_top", "begun")


class OtherLabel(Refused):
    """A token was written by weights that were not sent here."""


@dataclass(slots=True)
class _Row:
    """A completion, being written."""

    written: Written
    """As far as it is certain which weights wrote it."""
    server: VllmServer
    request_id: str = ""
    n_updates: int = 0
    """Of the engine, when the rest of it was asked for."""
    later: list[tuple[int, float, list[tuple[int, float]]]] = field(default_factory=list)
    """What came after an update began: whose it is, the server says at the end."""

    def take(self, place: tuple[int, float, list[tuple[int, float]]], version: int) -> None:
        token, logprob, top = place
        self.written.tokens.append(token)
        self.written.logprobs.append(logprob)
        self.written.versions.append(version)
        if self.written.request.n_top:
            self.written.top.append(top)


class VllmEngine:
    """`urls`: one for each server; a group goes to one of them, in turn. `eos`: the token that ends a completion."""

    server = VllmServer

    def __init__(
        self,
        urls: Sequence[str],
        eos: int,
        *,
        window: int,
        shelf: Shelf | None = None,
        tries: Tries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.version, self.eos, self.window = 0, eos, window
        limits = httpx.Limits(max_connections=PARALLEL + 8)
        client = httpx.AsyncClient(timeout=httpx.Timeout(30, read=600), transport=transport, limits=limits)
        self._remote = Remote(client, n_parallel=PARALLEL, tries=tries or Tries())
        self._servers = [self.server(url, client) for url in urls]
        self._turn = itertools.cycle(self._servers)
        self._rows: dict[Hashable, list[_Row]] = {}
        self._shelf = shelf or Shelf(name=" ".join(urls))
        self._versions: dict[str, int] = {}
        """By label, of all weights that were sent."""
        self._label = "0"
        self._n_updates = 0
        self._open = asyncio.Event()
        """Nothing is asked for during an update."""
        self._open.set()

    @property
    def idle(self) -> bool:
        return self._remote.idle

    def submit(self, request: Request) -> None:
        require(request, "vllm", ABLE, window=self.window)
        if request.begun and (request.stop or request.n_top):
            raise UserError("the engine 'vllm' goes on from begun completions without stop and n_top: leave them out")
        server = next(self._turn)
        rows = [_Row(written, server) for written in begin(request)]
        self._rows[request.key] = rows
        self._remote.start(request, lambda i: self._write(rows[i]))

    def step(self) -> list[Written]:
        """Raises GeneratorLost where a server is gone or writes by other weights, EngineFailed for any other lost request."""
        try:
            done = self._remote.step()
        except EngineFailed as e:
            self._rows.pop(e.key, None)
            if isinstance(e.__cause__, Unanswered | OtherLabel):
                raise GeneratorLost(str(e)) from e
            raise
        for written in done:
            left = [row for row in self._rows[written.request.key] if row.written is not written]
            self._rows[written.request.key] = left
            if not left:
                del self._rows[written.request.key]
        return done

    def partial(self) -> list[Written]:
        """What is being written now, as far as it is certain which weights wrote it."""
        return list(self._remote.call(self._partial()))

    def cancel(self, key: Hashable) -> None:
        self._remote.cancel(key)
        rows = self._rows.pop(key, [])
        if ids := [row.request_id for row in rows if row.request_id]:
            self._remote.call(rows[0].server.abort(ids))

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """On every server: hold still, take the weights, go on. Raises GeneratorLost, and asks nothing more, if one does not."""
        self.prepare(weights, version)()

    def prepare(self, weights: Mapping[str, Tensor], version: int) -> Callable[[], None]:
        """`load` in two parts: the file is written here, while servers write on; what it returns has them take it."""
        assert version >= self.version, f"weights of version {version} after {self.version}"
        sealed = self._shelf.put(weights, version)

        def switch() -> None:
            try:
                self._remote.call(self._update(sealed))
            except httpx.HTTPError as e:
                why = words(e.response) if isinstance(e, httpx.HTTPStatusError) else f"{type(e).__name__}: {e}"
                raise GeneratorLost(f"weights of version {version} did not reach every server: {why}") from e
            finally:
                sealed.path.unlink()

        return switch

    def close(self) -> None:
        self._remote.close()
        self._shelf.close()

    async def _update(self, sealed: Sealed) -> None:
        self._open.clear()
        self._n_updates += 1
        if not self._versions:
            await asyncio.gather(*(server.introduce(self._shelf.folder) for server in self._servers))
        self._versions[sealed.label] = sealed.version
        await asyncio.gather(*(server.update(sealed) for server in self._servers))
        self.version, self._label = sealed.version, sealed.label
        self._open.set()

    async def _partial(self) -> list[Written]:
        rows = [row.written for rows in self._rows.values() for row in rows if row.written.finish is None]
        return [
            replace(w, tokens=w.tokens.copy(), logprobs=w.logprobs.copy(), versions=w.versions.copy(), top=w.top.copy())
            for w in rows
        ]

    async def _write(self, row: _Row) -> Written:
        written = row.written
        ends = (self.eos, *written.request.stop_tokens)
        if written.tokens and written.tokens[-1] in ends:
            written.finish = Finish.STOP
        elif len(written.tokens) == written.request.max_tokens:
            written.finish = Finish.LENGTH
        else:
            await self._remote.again(lambda: self._ask(row))
        return written

    async def _ask(self, row: _Row) -> None:
        """For the rest of a completion: after a lost connection, from the last token that is certain."""
        await self._open.wait()
        row.request_id, row.n_updates, row.later = uuid.uuid4().hex, self._n_updates, []
        version, n_begun = self.version, len(row.written.tokens)
        seed = _seed(row.written.request.seeds[row.written.index], n_begun)
        pieces = row.server.write(row.written, row.request_id, eos=self.eos, seed=seed, label=self._label)
        async with aclosing(pieces):
            async for piece in pieces:
                try:
                    self._take(row, piece, version, n_begun)
                except (KeyError, TypeError, ValueError) as e:
                    raise Refused(f"the server's answer cannot be read: {type(e).__name__}: {e}") from None
                if row.written.finish is not None:
                    return
        raise httpx.RemoteProtocolError("the answer broke off")

    def _take(self, row: _Row, piece: Mapping[str, Any], version: int, n_begun: int) -> None:
        written = row.written
        found = places(piece, written.request.n_top)
        if row.n_updates != self._n_updates:
            row.later += found
        else:
            for place in found:
                row.take(place, version)
        if (reason := piece.get("finish_reason")) is None:
            return
        if reason not in ("stop", "length"):
            raise Refused(f"the server ended the completion with {reason!r}")
        sure = written.versions[n_begun:]
        told = self._told(piece, len(sure) + len(row.later), None if row.n_updates else version)
        if told is None and row.n_updates != self._n_updates:
            raise Refused("weights changed while it was written, and this server does not say which token is whose")
        told = sure if told is None else told
        if told[: len(sure)] != sure:
            raise OtherLabel(f"the server wrote with weights of version {version}, and says that they were of {told[0]}")
        for place, whose in zip(row.later, told[len(sure) :], strict=True):
            row.take(place, whose)
        written.finish = Finish(reason)

    def _told(self, piece: Mapping[str, Any], n: int, before: int | None) -> list[int] | None:
        """Which weights wrote each token of an answer, as the server says it; None where it does not say.

        `before`: the version of the server's own weights, where the answer was begun by them, whatever it calls them."""
        spans = piece.get("weight_versions")
        if spans is None:
            return None
        lengths = [int(s["end"]) - int(s["start"]) for s in spans]
        if sum(lengths) != n or min(lengths, default=0) < 0:
            raise ValueError(f"{n} tokens and versions of {sum(lengths)}")
        labels = [str(s["version"]) for s, length in zip(spans, lengths, strict=True) for _ in range(length)]
        known = (dict.fromkeys(labels, before) if before is not None else {}) | self._versions
        if strange := set(labels) - set(known):
            raise OtherLabel(
                f"the server writes with weights {min(strange)!r}, which were not sent here: it was started anew, or another run "
                "sends it weights"
            )
        return [known[label] for label in labels]


def _seed(seed: int, n_begun: int) -> int:
    """Of the rest of a completion: the numbers that drew its beginning must not come again."""
    if not n_begun:
        return seed
    return int.from_bytes(sha256(f"{seed} {n_begun}".encode()).digest()[:8]) >> 1

"""Continuous batching: a step takes every completion that is in one token on, reads a part of the prompts that are new, and lets
waiting ones in.

    step = let in -> start (take over what others have read) -> plan (which tokens of which rows) -> one forward pass -> write
           -> give back what is done

The same seed gives the same completion whatever else is in the batch, as far as the logits are equal: a matrix product of
another height may round otherwise in the last bit, which now and then turns a draw that was that close.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from magistral.engines.base import OPTIONS, Request, Written, begin, named, nothing_to_force, require
from magistral.engines.native.cache import Cache, grown, place_bytes
from magistral.engines.native.linears import Form
from magistral.engines.native.piece import Piece, next_piece, passes
from magistral.engines.native.plain import Plain
from magistral.engines.native.prefixes import BLOCK, Prefixes, n_alike
from magistral.engines.native.quick import Quick
from magistral.engines.native.row import Decode, Row, choose
from magistral.errors import ModelError, UserError
from magistral.models.transformer import Transformer

__all__ = ["NativeEngine", "Request", "Written"]

PART, WHOLE = 512, 4096
"""Prompt tokens of one step, while others are written and while none is (chosen: a part takes as long as a few tokens of a full
batch; a whole fits in memory at any model's width)."""
CACHE_MB, PREFIX_MB = 4096, 256
"""(chosen: for a laptop)"""


class NativeEngine:
    """Owns a copy of the model's weights; the trainer's may change beside it."""

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        model: Transformer,
        eos: int,
        *,
        n_slots: int,
        window: int,
        weights: Form = "float32",
        cache_mb: int | None = None,
        prefix_mb: int = PREFIX_MB,
        decode: Decode | None = None,
    ) -> None:
        """`cache_mb`: of what is being written (None: what `n_slots` windows need, 4096 at most unless one needs more);
        where it is full the youngest wait. `prefix_mb`: of prompts kept for later requests. `decode`: for stop texts.

        Raises UserError where the cache does not hold one window."""
        self.version = 0
        self.eos, self.n_slots, self.window, self.decode = eos, n_slots, min(window, model.sizes.window), decode
        self.sizes = model.sizes
        self.model = _own(model, weights)
        self.cache = self._new_cache(cache_mb)
        self.prefixes = Prefixes(prefix_mb * 2**20 // place_bytes(model.sizes))
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._ages = itertools.count()

    def _new_cache(self, cache_mb: int | None) -> Cache:
        sizes = self.sizes
        one = grown(self.window)
        n_places = min(self.n_slots * one, max(one, CACHE_MB * 2**20 // place_bytes(sizes)))
        if cache_mb is not None:
            n_places = cache_mb * 2**20 // place_bytes(sizes)
        if n_places < one:
            raise UserError(
                f"cache_mb={cache_mb} holds {n_places} tokens, and one completion may have {one}: "
                f"raise cache_mb to {-(-one * place_bytes(sizes) // 2**20)}, or lower the window"
            )
        return Cache(sizes, self.n_slots, n_places, device=self.model.device)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._rows

    def submit(self, request: Request) -> None:
        able = [name for name in OPTIONS if name not in ("messages", "extra") and (name != "stop" or self.decode is not None)]
        require(request, "native", able, window=self.window)
        self._check((*request.prompt, *request.prediction, *(token for begun in request.begun for token in begun.tokens)))
        for written in begin(request):
            self._waiting.append(Row(written, age=next(self._ages), eos=self.eos, decode=self.decode))

    def _check(self, tokens: Sequence[int]) -> None:
        n_words = self.sizes.n_words
        if unknown := [token for token in tokens if not 0 <= token < n_words]:
            raise UserError(f"token {unknown[0]} is none of the model's {n_words} words: encode the text with its own tokenizer")

    def partial(self) -> list[Written]:
        """What is being written now."""
        return [row.written for row in self._rows]

    @torch.inference_mode()  # rows move in a cache that was made under it
    def cancel(self, key: Hashable, index: int | None = None) -> None:
        self._waiting = deque(row for row in self._waiting if not named(row.written, key, index))
        self._keep([i for i, row in enumerate(self._rows) if not named(row.written, key, index)])

    def force(self, key: Hashable, index: int, tokens: Sequence[int]) -> None:
        self._check(tokens)
        for row in (*self._rows, *self._waiting):
            if named(row.written, key, index):
                row.told += tokens
                return
        raise nothing_to_force(key, index)

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Keys and values of what is being written are kept; prompts of finished requests are not.

        Raises ModelError, and changes nothing, where a weight is unknown, of another shape or not finite."""
        self.prepare(weights, version)()

    def prepare(self, weights: Mapping[str, Tensor], version: int) -> Callable[[], None]:
        """`load` in two parts: this one, of which another thread may see to while tokens are written, and the call that it
        returns, which belongs between two tokens and is a matter of microseconds on a CPU. Both before the next `prepare`."""
        with torch.inference_mode():
            self._check_weights(weights, version)
            switch_model = self.model.prepare(weights)

        @torch.inference_mode()
        def switch() -> None:
            assert version >= self.version, f"weights of version {version} after {self.version}"
            switch_model()
            self.version = version
            self.prefixes.clear()
            for row in self._rows:
                if row.n_held == row.n_taken:  # nothing was computed from what it took over
                    row.start_anew()

        return switch

    def _check_weights(self, weights: Mapping[str, Tensor], version: int) -> None:
        shapes = self.sizes.shapes()
        for name, tensor in weights.items():
            if shapes.get(name) != tuple(tensor.shape):
                raise ModelError(f"weights of version {version}: {name} {list(tensor.shape)} is none of this model's")
            if not (tensor.sum().isfinite() or tensor.isfinite().all()):  # the sum of all is quicker, and may overflow
                raise ModelError(f"weights of version {version}: {name} holds numbers that are not finite")

    @torch.inference_mode()
    def step(self) -> list[Written]:
        self._let_in()
        self._make_room()
        self._start()
        for pieces in passes(self._plan()):
            self._write(pieces, self._forward(pieces))
        return self._take_finished()

    def _let_in(self) -> None:
        """As many waiting ones as have room, in their order."""
        while self._waiting:
            longest = max(len(row.tokens) for row in (*self._rows, self._waiting[0])) + 1
            if len(self._rows) >= self.cache.room(longest):
                return
            self._rows.append(self._waiting.popleft())

    def _make_room(self) -> None:
        """Where the cache is full, the youngest go back to waiting, with what they have written."""
        needed = max((min(self.window, len(row.tokens) + row.n_ahead) for row in self._rows), default=0)
        while self._rows and len(self._rows) > self.cache.room(needed):
            slot, youngest = max(enumerate(self._rows), key=lambda at: at[1].age)
            self._keep([i for i in range(len(self._rows)) if i != slot])
            youngest.start_anew()
            self._waiting.appendleft(youngest)
        self.cache.reserve(len(self._rows), needed)

    def _start(self) -> None:
        """Rows that are new take over what is held of how their tokens begin, or wait for an older one that reads more of it."""
        readers: list[Row] = []
        for slot, row in sorted(enumerate(self._rows), key=lambda at: at[1].age):
            if not row.started and not row.written.finish:
                self._begin(row, slot, readers)
            if row.started and row.reading and row.read_by == self.version:
                readers.append(row)

    def _begin(self, row: Row, slot: int, readers: Sequence[Row]) -> None:
        wanted = row.tokens[:-1]  # the last goes through the model in any case, to say what comes next
        blocks = self.prefixes.get(wanted)
        n_kept = sum(block.keys.shape[2] for block in blocks)
        beside = [(min(o.n_held, n_alike(o.tokens, wanted)), i) for i, o in enumerate(self._rows) if o.read_by == self.version]
        n_beside, source = max(beside, default=(0, 0))
        n_held = max(n_kept, n_beside)
        n_coming = max((n_alike(other.tokens, wanted) for other in readers), default=0)
        if n_coming >= n_held + BLOCK or n_held < n_coming == len(wanted):
            return
        if n_beside > n_kept:
            self.cache.move(source, slot, n_beside)
        else:
            self.cache.fill(slot, blocks)
        row.n_held, row.n_taken, row.read_by = n_held, n_held, self.version
        if not row.written.tokens:
            row.written.n_cached = n_held

    def _plan(self) -> list[Piece]:
        """The last token of every row that is being written; parts of what is to be read, the oldest first."""
        pieces: list[Piece] = []
        left = WHOLE if all(row.reading for row in self._rows) else PART
        for slot, row in sorted(enumerate(self._rows), key=lambda at: at[1].age):
            if row.written.finish or not row.started:
                continue
            n = 1
            if row.reading:
                n = min(left, row.n_behind)
                left -= n
            if n:
                pieces.append(next_piece(slot, row, n))
        return sorted(pieces, key=lambda piece: piece.span.row)

    def _forward(self, pieces: list[Piece]) -> Tensor:
        """[B, V] logits of the places that say what comes next; of none where all is still being read."""
        tokens = [token for piece in pieces for token in piece.tokens]
        wanted: list[int] = []
        end = 0
        for piece in pieces:
            end += piece.span.n
            wanted += range(end - piece.n_drawn, end)
        return self.model.logits(tokens, [piece.span for piece in pieces], self.cache, wanted)

    def _write(self, pieces: list[Piece], logits_BV: Tensor) -> None:
        """What comes next in each row; a guess that is right lets the place after it count too."""
        chosen = iter(choose([(p.row, j) for p in pieces for j in range(p.n_drawn)], logits_BV))
        for piece in pieces:
            row, was_reading = piece.row, piece.row.reading
            row.n_held += piece.span.n - len(piece.ahead)
            if was_reading and piece.n_drawn:
                self._remember(piece.span.row, row.n_held - 1)
            if not row.told:
                row.written.n_drafted += len(piece.ahead)
            for j, choice in enumerate([next(chosen) for _ in range(piece.n_drawn)]):
                if row.written.finish is not None:
                    break
                was_told = row.take(choice, self.version)
                if j == len(piece.ahead) or piece.ahead[j] != choice.token:
                    break
                row.n_held += 1
                row.written.n_accepted += not was_told

    def _take_finished(self) -> list[Written]:
        done = [row.written for row in self._rows if row.written.finish is not None]
        if done:
            self._start()  # those that wait for one that goes: afterwards nobody may hold what it has read
            self._hand_on()
            self._keep([i for i, row in enumerate(self._rows) if row.written.finish is None])
        return done

    def _hand_on(self) -> None:
        """Where a completion is done and the next that waits is of its group, that one takes its place and its prompt."""
        for slot, row in enumerate(self._rows):
            following = self._waiting[0] if self._waiting else None
            if following and following.request is row.request and row.written.finish and not following.written.finish:
                self._begin(following, slot, ())
                self._rows[slot] = self._waiting.popleft()

    def _keep(self, kept: list[int]) -> None:
        """Close the gaps: rows from the end move into them."""
        for slot in set(range(len(self._rows))) - set(kept):
            if len(self._rows[slot].request.seeds) == 1:  # may be gone on from; a group's completions seldom are
                self._remember(slot, self._rows[slot].n_held)
        n = len(kept)
        gaps = sorted(set(range(n)) - set(kept))
        for gap, source in zip(gaps, [i for i in kept if i >= n], strict=True):
            self.cache.move(source, gap, self._rows[source].n_held)
            self._rows[gap] = self._rows[source]
        del self._rows[n:]

    def _remember(self, slot: int, n: int) -> None:
        """Keep the first `n` places of a row for later requests, if all were read by the weights of now."""
        row = self._rows[slot]
        if row.read_by == self.version:
            self.prefixes.put(row.tokens[:n], self.cache.keys[:, slot], self.cache.values[:, slot])


def _own(model: Transformer, weights: Form) -> Quick | Plain:
    if model.embed_tokens.weight.device.type == "cpu":
        return Quick(model, weights)
    if weights != "float32":
        raise UserError(f'engine.weights="{weights}" is for a CPU: leave it out on a GPU, or ask vLLM')
    return Plain(model)

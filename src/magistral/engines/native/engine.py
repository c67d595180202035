"""Continuous batching: every step writes one token of every completion that is in, and lets waiting groups in.

The same seed gives the same completion whatever else is in the batch, as far as the logits are equal: a matrix product of
another height may round otherwise in the last bit, which now and then turns a draw that was that close.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from magistral.engines.base import Request, Written, begin, require
from magistral.engines.native.cache import Cache, Decode, Prefill
from magistral.engines.native.draw import draw, uniforms
from magistral.engines.native.int8 import Int8Linear, quantise_linears
from magistral.errors import UserError
from magistral.flow import Finish
from magistral.models.transformer import Transformer

__all__ = ["NativeEngine", "Request", "Written"]


class NativeEngine:
    """Owns a copy of the model's weights; the trainer's may change beside it."""

    def __init__(
        self, model: Transformer, eos: int, *, n_slots: int, window: int, weights: Literal["float32", "int8"] = "float32"
    ) -> None:
        self.version = 0
        self.eos, self.n_slots, self.window = eos, n_slots, min(window, model.sizes.window)
        self.model = copy.deepcopy(model).requires_grad_(False).eval()  # noqa: FBT003
        if weights == "int8":
            quantise_linears(self.model)
        self.cache = Cache(model.sizes, n_slots, device=model.embed_tokens.weight.device)
        self._waiting: deque[Request] = deque()
        self._rows: list[Written] = []
        self._uniforms: list[list[float]] = []

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._rows

    def submit(self, request: Request) -> None:
        require(request, "native", ("begun",), window=self.window)
        if len(request.seeds) > self.n_slots:
            raise UserError(f"a group of {len(request.seeds)} does not fit in engine.n_slots={self.n_slots}: raise n_slots")
        self._waiting.append(request)

    def partial(self) -> list[Written]:
        """What is being written now."""
        return list(self._rows)

    @torch.inference_mode()  # rows move in a cache that was made under it
    def cancel(self, key: Hashable) -> None:
        self._waiting = deque(r for r in self._waiting if r.key != key)
        self._keep([i for i, row in enumerate(self._rows) if row.request.key != key])

    @torch.inference_mode()
    def step(self) -> list[Written]:
        self._admit()
        if self._rows:
            self._decode()
        return self._take_finished()

    @torch.inference_mode()
    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        assert version >= self.version, f"weights of version {version} after {self.version}"
        for name, tensor in weights.items():
            self._set(name, tensor)
            if name == "embed_tokens.weight" and self.model.sizes.tied:
                self._set("lm_head.weight", tensor)
        self.version = version

    def _set(self, name: str, tensor: Tensor) -> None:
        path, _, kind = name.rpartition(".")
        module: nn.Module = self.model.get_submodule(path)
        if isinstance(module, Int8Linear) and kind == "weight":
            module.pack(tensor)
        else:
            getattr(module, kind).copy_(tensor)

    def _admit(self) -> None:
        """Let in as many waiting groups as have room, in their order, with one prefill for all."""
        new: list[Request] = []
        free = self.n_slots - len(self._rows)
        while self._waiting and len(self._waiting[0].seeds) <= free:
            free -= len(self._waiting[0].seeds)
            new.append(self._waiting.popleft())
        if not new:
            return
        start = len(self._rows)
        inputs: list[tuple[int, ...]] = []
        prompt_of_row: list[int] = []
        for request in new:
            rows = begin(request)
            for row in rows:
                if request.begun or row is rows[0]:  # a group's rows share its prompt, until they have tokens of their own
                    inputs.append((*request.prompt, *row.tokens))
                prompt_of_row.append(len(inputs) - 1)
                if row.tokens:
                    self._end(row)
            self._rows += rows
            self._uniforms += [uniforms(seed, request.max_tokens) for seed in request.seeds]
        longest = max(map(len, inputs))
        self.cache.reserve(max(len(r.prompt) + r.max_tokens for r in new))
        tokens = torch.tensor([[*i, *[self.eos] * (longest - len(i))] for i in inputs])
        positions = torch.arange(longest)[None].expand(len(inputs), -1)
        context = Prefill(self.cache, slice(start, len(self._rows)), torch.tensor(prompt_of_row))
        hidden = self.model(tokens, positions, context)
        ends = torch.tensor([len(i) for i in inputs])
        self.cache.lengths[start : len(self._rows)] = ends[prompt_of_row]
        logits = self.model.lm_head(hidden[torch.arange(len(inputs)), ends - 1])
        self._write(logits[prompt_of_row], start)

    def _decode(self) -> None:
        n = len(self._rows)
        tokens = torch.tensor([[row.tokens[-1]] for row in self._rows])
        hidden = self.model(tokens, self.cache.lengths[:n, None], Decode(self.cache, n))
        self.cache.lengths[:n] += 1
        self._write(self.model.lm_head(hidden[:, 0]), 0)

    def _write(self, logits_BV: Tensor, start: int) -> None:
        """One token of each row from `start` on; rows that are done stay as they are until they are taken."""
        rows = self._rows[start:]
        u = torch.tensor(
            [uniform[min(len(row.tokens), len(uniform) - 1)] for row, uniform in zip(rows, self._uniforms[start:], strict=True)]
        )
        temperature = torch.tensor([row.request.temperature for row in rows])
        top_p = torch.tensor([row.request.top_p for row in rows])
        tokens, logprobs = draw(logits_BV, u, temperature, top_p)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if row.finish is not None:
                continue
            row.tokens.append(token)
            row.logprobs.append(logprob)
            row.versions.append(self.version)
            self._end(row)

    def _end(self, row: Written) -> None:
        """Mark it as ended if its last token ends it."""
        if row.tokens[-1] == self.eos:
            row.finish = Finish.STOP
        elif len(row.tokens) >= row.request.max_tokens:
            row.finish = Finish.LENGTH

    def _take_finished(self) -> list[Written]:
        done = [row for row in self._rows if row.finish is not None]
        if done:
            self._keep([i for i, row in enumerate(self._rows) if row.finish is None])
        return done

    def _keep(self, kept: list[int]) -> None:
        """Close the gaps: rows from the end move into them."""
        n = len(kept)
        gaps = sorted(set(range(n)) - set(kept))
        for gap, source in zip(gaps, [i for i in kept if i >= n], strict=True):
            self.cache.move(source, gap)
            self._rows[gap], self._uniforms[gap] = self._rows[source], self._uniforms[source]
        del self._rows[n:], self._uniforms[n:]

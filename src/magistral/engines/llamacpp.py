"""A GGUF file through llama.cpp: the fastest for one completion at a time, on a CPU or a GPU. Needs the extra `llamacpp`.

Through its plain C interface: a sequence for each completion, a group's prompt computed once, all that is in decoded in one
batch. Tokens are drawn here and not there, so that a seed, a log-probability and an option mean what they mean elsewhere.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from magistral.engines.base import EngineFailed, Request, Written, require, stopped
from magistral.errors import ModelError, UserError
from magistral.flow import Finish
from magistral.text.tokens import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 512
"""Tokens computed at once (chosen: llama.cpp's own default)."""


class LlamacppEngine:
    """`tokenizer`: the file's own, as `models.words.tokenizer_of` reads it."""

    def __init__(
        self, file: Path, tokenizer: Tokenizer, *, n_slots: int, window: int, n_threads: int, n_gpu_layers: int = 0
    ) -> None:
        self.version = 0
        self.tokenizer, self.n_slots, self.window = tokenizer, n_slots, window
        self._llama = _Context(file, n_slots, window, n_threads=n_threads, n_gpu_layers=n_gpu_layers)
        self._waiting: deque[Request] = deque()
        self._rows: dict[int, tuple[Written, Any]] = {}
        """By sequence: what is being written, and where its random numbers come from."""

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._rows

    def submit(self, request: Request) -> None:
        require(request, "llamacpp", ("top_k", "min_p", "stop", "n_top"), window=self.window)
        if len(request.seeds) > self.n_slots:
            raise UserError(f"a group of {len(request.seeds)} does not fit in n_slots={self.n_slots}: raise n_slots")
        self._waiting.append(request)

    def partial(self) -> list[Written]:
        """What is being written now."""
        return [written for written, _ in self._rows.values()]

    def cancel(self, key: Hashable) -> None:
        self._waiting = deque(r for r in self._waiting if r.key != key)
        for row in [row for row, (written, _) in self._rows.items() if written.request.key == key]:
            self._leave(row)

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        raise UserError("the engine 'llamacpp' takes no weights: it reads a GGUF file; convert the new ones and start another")

    def close(self) -> None:
        """Give up everything, the memory of model and cache too."""
        self._waiting.clear()
        self._rows.clear()
        self._llama.close()

    def step(self) -> list[Written]:
        new = self._admit()
        rows = [row for row in self._rows if row not in new]
        if rows:
            places = [len(w.request.prompt) + len(w.tokens) - 1 for w in (self._rows[row][0] for row in rows)]
            logits = self._llama.decode([self._rows[row][0].tokens[-1] for row in rows], places, rows, wanted=range(len(rows)))
            for row, numbers in zip(rows, logits, strict=True):
                self._write(row, numbers)
        done = [row for row, (written, _) in self._rows.items() if written.finish is not None]
        return [self._leave(row) for row in done]

    def _admit(self) -> set[int]:
        """Let in what has room; returns the rows that have their first token."""
        new: set[int] = set()
        while self._waiting and len(self._waiting[0].seeds) <= self.n_slots - len(self._rows):
            request = self._waiting.popleft()
            rows = [row for row in range(self.n_slots) if row not in self._rows][: len(request.seeds)]
            first = self._prefill(request.prompt, rows[0])
            for i, row in enumerate(rows):
                if i:
                    self._llama.copy(rows[0], row)
                self._rows[row] = (Written(request=request, index=i), np.random.Generator(np.random.Philox(request.seeds[i])))
                self._write(row, first)
            new |= set(rows)
        return new

    def _prefill(self, prompt: Sequence[int], row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        for start in range(0, len(prompt), BATCH):
            part = prompt[start : start + BATCH]
            last = [len(part) - 1] if start + BATCH >= len(prompt) else []
            logits = self._llama.decode(part, range(start, start + len(part)), [row] * len(part), wanted=last)
        return logits[0]

    def _write(self, row: int, logits: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        written, generator = self._rows[row]
        request = written.request
        token, logp = draw(logits, float(generator.random()), request)
        written.tokens.append(token)
        written.logprobs.append(float(logp[token]))
        written.versions.append(0)
        if request.n_top:
            likeliest = np.argsort(-logp)[: request.n_top]
            written.top.append([(int(i), float(logp[i])) for i in likeliest])
        if token == self.tokenizer.eos or stopped(written.tokens, request.stop, self.tokenizer.decode):
            written.finish = Finish.STOP
        elif len(written.tokens) == request.max_tokens:
            written.finish = Finish.LENGTH

    def _leave(self, row: int) -> Written:
        self._llama.forget(row)
        return self._rows.pop(row)[0]


def draw(logits: np.ndarray[Any, Any], u: float, request: Request) -> tuple[int, np.ndarray[Any, Any]]:
    """A token by inverting the cumulative distribution at `u`, and the log-probabilities that it was drawn from.

    Temperature 0 takes the likeliest and gives log-probabilities at temperature 1."""
    logp = _log_softmax(logits.astype(np.float64) / (request.temperature or 1.0))
    if request.temperature == 0:
        return int(logp.argmax()), logp
    kept = np.ones(len(logp), dtype=bool)
    order = np.argsort(-logp, kind="stable")
    if request.top_k:
        kept[order[request.top_k :]] = False
    if request.top_p < 1:
        p = np.exp(logp[order])
        kept[order[np.cumsum(p) - p >= request.top_p]] = False
    if request.min_p:
        kept &= logp >= logp.max() + np.log(request.min_p)
    if not kept.all():
        logp = _log_softmax(np.where(kept, logp, -np.inf))
    cumulative = np.cumsum(np.exp(logp))
    return int(np.searchsorted(cumulative, min(u * cumulative[-1], np.nextafter(cumulative[-1], 0)), side="right")), logp


def _log_softmax(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = numbers - numbers.max()
    out: np.ndarray[Any, Any] = shifted - np.log(np.exp(shifted).sum())
    return out


def _library() -> Any:
    """llama.cpp, silent. Raises UserError where it is not installed.

    What it logs to lives as long as the process: C holds no reference to it, so one that went with an engine would leave the next
    call into nowhere."""
    try:
        import llama_cpp
    except ImportError:
        raise UserError("the engine 'llamacpp' needs the package llama-cpp-python: scripts/install llamacpp") from None
    if not _SILENCE:
        _SILENCE.append(llama_cpp.llama_log_callback(lambda level, text, data: _hear(level, text)))
        llama_cpp.llama_log_set(_SILENCE[0], ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
    return llama_cpp


_SILENCE: list[Any] = []
"""What C calls to log."""
_FAULTS: list[str] = []
"""The first error that it logged since a file was opened."""
_ERROR = 4
"""ggml's level."""


def _hear(level: int, text: bytes) -> None:
    if level == _ERROR and not _FAULTS:
        _FAULTS.append(" ".join(text.decode(errors="replace").split()))


class _Context:
    """The little of llama.cpp's C interface that is used."""

    def __init__(self, file: Path, n_slots: int, window: int, *, n_threads: int, n_gpu_layers: int) -> None:
        self.c: Any = _library()
        settings = self.c.llama_model_default_params()
        settings.n_gpu_layers = n_gpu_layers
        settings.check_tensors = True  # else a NaN is first heard of as nonsense, since products of 8 bits swallow it
        _FAULTS.clear()
        self.model = self.c.llama_model_load_from_file(str(file).encode(), settings)
        if not self.model:
            fault = next(iter(_FAULTS), "it does not say why")
            raise ModelError(f"{file}: llama.cpp cannot load it: {fault.replace('invalid data', 'numbers that are not finite')}")
        settings = self.c.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.n_batch, settings.n_ubatch = n_slots * window, n_slots, BATCH, BATCH
        settings.n_threads = settings.n_threads_batch = n_threads
        settings.kv_unified = True  # so that a group's prompt is held once
        self.context = self.c.llama_init_from_model(self.model, settings)
        if not self.context:
            self.c.llama_model_free(self.model)
            raise UserError(f"llama.cpp has no room for {n_slots} completions of {window} tokens: lower n_slots or the window")
        self.memory = self.c.llama_get_memory(self.context)
        self.n_words = self.c.llama_vocab_n_tokens(self.c.llama_model_get_vocab(self.model))
        self.batch = self.c.llama_batch_init(max(BATCH, n_slots), 0, 1)

    def decode(
        self, tokens: Sequence[int], places: Sequence[int], rows: Sequence[int], *, wanted: Sequence[int]
    ) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        """Logits after those of the tokens that `wanted` names."""
        batch, asked = self.batch, set(wanted)
        batch.n_tokens = len(tokens)
        for i, (token, place, row) in enumerate(zip(tokens, places, rows, strict=True)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, place, 1, row
            batch.logits[i] = i in asked
        status = self.c.llama_decode(self.context, batch)
        if status:
            raise EngineFailed(f"llama.cpp could not compute {len(tokens)} tokens (status {status})")
        found = [self.c.llama_get_logits_ith(self.context, i) for i in wanted]
        return [np.ctypeslib.as_array(numbers, shape=(self.n_words,)).copy() for numbers in found]

    def copy(self, source: int, target: int) -> None:
        self.c.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def forget(self, row: int) -> None:
        self.c.llama_memory_seq_rm(self.memory, row, -1, -1)

    def close(self) -> None:
        if self.context:
            self.c.llama_batch_free(self.batch)
            self.c.llama_free(self.context)
            self.c.llama_model_free(self.model)
            self.context = self.model = None

"""Waiting for a program: it ends, or its time does, or it writes too much."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from magistral.verifiers.sandbox.limits import End, Limits
from magistral.verifiers.sandbox.start import Started

STDERR_KEPT = 2048
_CHUNK = 1 << 16


@dataclass(slots=True)
class Seen:
    end: End = End.EXITED
    stdout: bytes = b""
    stderr: bytes = b""
    status: bytes = b""
    """What the box itself said, on a channel that the program does not have."""
    exit_code: int = 0
    """Of the process that was started, negative for a signal; under bubblewrap that is not the program itself."""


@dataclass(slots=True)
class _Reader:
    """Takes what two pipes hold, up to a limit for both together."""

    room: int
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)

    def take(self, file: int, into: list[bytes]) -> bool:
        """False at the end of the file."""
        try:
            chunk = os.read(file, _CHUNK)
        except BlockingIOError:
            return True
        self.room -= len(chunk)
        into.append(chunk)
        return bool(chunk)


def watch(started: Started, limits: Limits, kill: Callable[[], None]) -> Seen:
    """Until the program itself has ended: a child that holds the pipe, or a pipe closed early, is no end. Calls `kill` always."""
    seen, reader = Seen(), _Reader(int(limits.output_mb * 1e6))
    deadline = time.monotonic() + limits.wall_s
    for file in (started.stdout, started.stderr, started.status):
        os.set_blocking(file, False)
    ended = os.pidfd_open(started.pid)
    with selectors.DefaultSelector() as selector:
        selector.register(started.stdout, selectors.EVENT_READ, reader.stdout)
        selector.register(started.stderr, selectors.EVENT_READ, reader.stderr)
        selector.register(ended, selectors.EVENT_READ)
        try:
            seen.end = _wait(selector, reader, deadline)
        finally:
            kill()
            os.close(ended)
    seen.exit_code = started.wait()
    if seen.end is End.EXITED:
        _drain(started.stdout, reader.stdout, reader)
        _drain(started.stderr, reader.stderr, reader)
        seen.end = End.OUTPUT if reader.room < 0 else End.EXITED
    with contextlib.suppress(BlockingIOError):  # somebody still holds the other end: nothing was said
        seen.status = os.read(started.status, _CHUNK)
    seen.stdout, seen.stderr = b"".join(reader.stdout), b"".join(reader.stderr)
    if len(seen.stderr) > 2 * STDERR_KEPT:  # a compiler's first fault, an interpreter's last line
        seen.stderr = seen.stderr[:STDERR_KEPT] + b"\n...\n" + seen.stderr[-STDERR_KEPT:]
    return seen


def _wait(selector: selectors.BaseSelector, reader: _Reader, deadline: float) -> End:
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return End.TIMED_OUT
        for key, _ in selector.select(left):
            if key.data is None:
                return End.EXITED
            if not reader.take(key.fd, key.data):
                selector.unregister(key.fileobj)
        if reader.room < 0:
            return End.OUTPUT


def _drain(file: int, into: list[bytes], reader: _Reader) -> None:
    """What was written before the end and not yet read."""
    while reader.room >= 0:
        before = reader.room
        if not reader.take(file, into) or reader.room == before:
            return

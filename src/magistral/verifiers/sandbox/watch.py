"""Waiting for a program: it ends, or its time does, or it writes too much."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from magistral.verifiers.sandbox.limits import End, Limits

STDERR_KEPT = 4096
_CHUNK = 1 << 16


@dataclass(slots=True)
class Seen:
    end: End = End.EXITED
    stdout: bytes = b""
    stderr: bytes = b""
    status: bytes = b""
    """What the box itself said, on a channel that the program does not have."""


@dataclass(slots=True)
class _Reader:
    """Takes what two pipes hold, up to a limit for both together."""

    room: int
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)

    def take(self, file: IO[bytes], into: list[bytes]) -> bool:
        """False at the end of the file."""
        try:
            chunk = os.read(file.fileno(), _CHUNK)
        except BlockingIOError:
            return True
        self.room -= len(chunk)
        if into is self.stdout or sum(map(len, into)) < STDERR_KEPT:
            into.append(chunk)
        return bool(chunk)


def watch(process: subprocess.Popen[bytes], status: int, limits: Limits, kill: Callable[[], None]) -> Seen:
    """Until the program itself has ended: a child that holds the pipe, or a pipe closed early, is no end. Calls `kill` always."""
    assert process.stdout is not None
    assert process.stderr is not None
    seen, reader = Seen(), _Reader(int(limits.output_mb * 1e6))
    deadline = time.monotonic() + limits.wall_s
    ended = os.pidfd_open(process.pid)
    with process.stdout as out, process.stderr as err, selectors.DefaultSelector() as selector:
        for file, into in ((out, reader.stdout), (err, reader.stderr)):
            os.set_blocking(file.fileno(), False)
            selector.register(file, selectors.EVENT_READ, (file, into))
        selector.register(ended, selectors.EVENT_READ)
        try:
            seen.end = _wait(selector, reader, deadline)
        finally:
            kill()
            process.wait()
            os.close(ended)
        if seen.end is End.EXITED:
            _drain(out, reader.stdout, reader)
            _drain(err, reader.stderr, reader)
            seen.end = End.OUTPUT if reader.room < 0 else End.EXITED
    os.set_blocking(status, False)
    try:
        seen.status = os.read(status, _CHUNK)
    except BlockingIOError:  # somebody still holds the other end: nothing was said
        seen.status = b""
    seen.stdout, seen.stderr = b"".join(reader.stdout), b"".join(reader.stderr)[:STDERR_KEPT]
    return seen


def _wait(selector: selectors.BaseSelector, reader: _Reader, deadline: float) -> End:
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return End.TIMED_OUT
        for key, _ in selector.select(left):
            if key.data is None:
                return End.EXITED
            if not reader.take(*key.data):
                selector.unregister(key.fileobj)
        if reader.room < 0:
            return End.OUTPUT


def _drain(file: IO[bytes], into: list[bytes], reader: _Reader) -> None:
    """What was written before the end and not yet read."""
    while reader.room >= 0:
        before = reader.room
        if not reader.take(file, into) or reader.room == before:
            return

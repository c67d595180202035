"""Who waits for whom, and since when: kept in waits.json of the run's folder, so that a silent run can be asked why."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from magistral.errors import DiscFull
from magistral.log import write_atomically

EVERY_S = 1.0
"""Between two writings (chosen: a person's patience)."""


class Waits:
    """As a context manager it writes its file, from a thread of its own: a loop that hangs is told of all the same."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.faults: deque[dict[str, Any]] = deque(maxlen=20)
        """The last workers that were lost: {"time": …, "who": "generator-0", "why": …}."""
        self.workers: dict[str, dict[str, Any]] = {}
        """Name to {"pid": 4711, "host": "node-3"}, of those that are up."""
        self._open: dict[int, dict[str, Any]] = {}
        self._numbers = itertools.count()
        self._last = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="waits", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        self.write()

    @contextmanager
    def __call__(self, who: str, whom: str, what: str) -> Iterator[None]:
        """Example: with waits("train", "verify", "5 of 8 groups are scored"): …"""
        number = next(self._numbers)
        self._open[number] = {"who": who, "for": whom, "what": what, "since": time.time()}
        try:
            yield
        finally:
            del self._open[number]

    def fault(self, who: str, why: str) -> None:
        self.faults.append({"time": time.time(), "who": who, "why": why})

    def write(self) -> None:
        known = {"waits": list(self._open.copy().values()), "workers": self.workers.copy(), "faults": list(self.faults)}
        text = json.dumps(known, indent=1) + "\n"
        if self.file is not None and text != self._last:
            with suppress(DiscFull):  # the run's own files come first, and what meets a full disc there says so
                write_atomically(self.file, text)
                self._last = text

    def _write_on(self) -> None:
        while not self._end.wait(EVERY_S):
            self.write()


def explain(file: Path, *, alive: bool) -> list[str]:
    """Lines for a person; the longest wait first. `alive`: a process holds the run."""
    if not file.exists():
        return ["nothing is known of this run's waits: it has not begun, or an older version wrote it"]
    found = json.loads(file.read_text(encoding="utf-8"))
    lines = ["the run is going on" if alive else "no process holds this run: what stands here is how it was at the end"]
    for wait in sorted(found["waits"], key=lambda w: float(w["since"])):
        lines.append(f"{wait['who']} waits for {wait['for']}, since {_ago(wait['since'])}: {wait['what']}")
    lines += [f"{name} is process {worker['pid']} on {worker['host']}" for name, worker in found["workers"].items()]
    lines += [f"lost {_ago(fault['time'])} ago: {fault['who']}: {fault['why']}" for fault in found["faults"]]
    return lines


def _ago(since: float) -> str:
    return f"{max(0.0, time.time() - since):.0f} s"

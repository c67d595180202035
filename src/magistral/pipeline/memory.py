"""The most memory that a process has held, as its kernel counts it."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path


def peak_mb(*, children: bool) -> float:
    """Of this process, and of all that it has started and that live: the sum of their peaks, which need not have been at once.

    Pages of shared memory that it has touched count."""
    if not Path("/proc/self/status").exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return _peak_kb("self", children) / 2**10


def _peak_kb(pid: str, children: bool) -> int:
    """Not getrusage, which tells a new process the peak of the one that started it."""
    with suppress(OSError):  # it has ended meanwhile
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        peak = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        started = [file.read_text(encoding="utf-8").split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
        return peak + sum(_peak_kb(child, children) for ids in started for child in ids if children)
    return 0

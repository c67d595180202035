"""What a program may use, and the record of a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """How a program is kept in, the strongest first; a verdict names it."""

    FULL = "bubblewrap+cgroups"
    """Own namespaces, no network, a read-only system, refused system calls; memory and processes counted for the whole family."""
    BUBBLEWRAP = "bubblewrap"
    """The same, but memory is limited for each process by itself: this host lets us make no control groups."""
    UID = "uid+rlimits"
    """No namespaces: a user id of its own for each slot, limits for each process, refused system calls (so no network)."""
    RLIMITS = "rlimits"
    """As our own user: limits for each process and refused system calls. It can read what we can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Example: Limits() is what one test of a Magistral code problem may use (arXiv 2506.10910, section 2.2.2)."""

    wall_s: float = 4.0
    memory_mb: int = 300
    n_processes: int = 32
    """Threads count."""
    output_mb: float = 16.0
    """Standard output and error together."""
    tmp_mb: int = 64
    """What /tmp holds; it counts as memory, too."""


class End(StrEnum):
    """Why a run ended."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    MEMORY = "memory_limit"
    OUTPUT = "output_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Example: Ran(end=End.EXITED, exit_code=0, stdout=b"3\\n", stderr=b"", wall_s=0.03, cpu_s=0.02, peak_mb=9.1, tier=…)"""

    end: End
    exit_code: int
    """128 + n after signal n; of no meaning unless `end` is EXITED."""
    stdout: bytes
    stderr: bytes
    """Its first and its last 2 kB."""
    wall_s: float
    cpu_s: float | None
    """Of the whole family; None where the host does not count it."""
    peak_mb: float | None
    tier: Tier
